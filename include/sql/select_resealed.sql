-- Versions that were sealed since a moment because rows of a sealed date had changed, and nobody had decided that; each with what the
-- version before it held. Parameters: since (timestamptz).
SELECT s.usage_date, s.version, s.reason, s.run_id, b.total, s.total
FROM usage_seal AS s
JOIN usage_seal AS b ON b.usage_date = s.usage_date AND b.version = s.version - 1
WHERE s.sealed_at > %(since)s AND s.reason IN ('late', 'changed')
ORDER BY s.usage_date, s.version;
