-- What people decided of a date since a moment that changes its rows, alike decisions together, and by how much the rows' sum went up
-- by them. Parameters: usage_date, since (timestamptz). Returns decision, decided_by, reason, how many, more (numeric).
SELECT decision, decided_by, reason, count(*), sum(coalesce(value_after, 0)::numeric - coalesce(value_before, 0))
FROM usage_decision
WHERE usage_date = %(usage_date)s AND decided_at > %(since)s AND decision <> 'keep'
GROUP BY decision, decided_by, reason
ORDER BY min(decided_at), decision, decided_by, reason;
