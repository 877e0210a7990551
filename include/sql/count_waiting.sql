-- How many counters wait for a decision, by date, and of how many somebody has proposed one. No parameters.
SELECT l.usage_date, count(*), count(p.letter_id)
FROM usage_dead_letter AS l
LEFT JOIN (SELECT DISTINCT letter_id FROM usage_proposal) AS p ON p.letter_id = l.id
WHERE l.resolved_at IS NULL AND l.reason = 'counter_regressed' AND l.usage_date IS NOT NULL
GROUP BY l.usage_date
ORDER BY l.usage_date;
