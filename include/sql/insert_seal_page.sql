-- Keep leaves beside the seal of a version. Parameters: usage_date, version, page, merchant_ids (text[]), totals (numeric[]),
-- leaves (bytea).
INSERT INTO usage_seal_page (usage_date, version, page, merchant_ids, totals, leaves)
VALUES (%(usage_date)s, %(version)s, %(page)s, %(merchant_ids)s::text[], %(totals)s::numeric[], %(leaves)s);
