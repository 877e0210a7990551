-- Add a seal to the end of the chain. Parameters: seal_number, usage_date, version, sealed_at, run_id, counters, total, root, chain,
-- signature (bytea or NULL), reason.
INSERT INTO usage_seal (seal_number, usage_date, version, sealed_at, run_id, counters, total, root, chain, signature, reason)
VALUES (%(seal_number)s, %(usage_date)s, %(version)s, %(sealed_at)s, %(run_id)s, %(counters)s, %(total)s, %(root)s, %(chain)s,
        %(signature)s, %(reason)s);
