-- Counters of some dates whose hourly history does not lead to what is stored: a point is higher than the next one, or than the
-- row, and no correction; it is no earlier than the row; or its row is gone. The sum of merchant_usage_hourly is what is stored even
-- then. The statements that write history are those that raise rows, so somebody else has changed one of the two.
-- One pass over the points of these dates, in their order, and one join with their rows; a full one, as in count_differences.
-- Where no date has a point, no row is read either.
-- Parameters: dates (date[]), limit (bigint: counters that are named).
-- Returns of each date how many there are, and the first of them: date, number, merchant_id, metric_type.
WITH point AS (
    SELECT date, merchant_id, metric_type, held_since, metric_value, correction,
           lead(metric_value) OVER points AS next_value
    FROM usage_hourly_history
    WHERE date = ANY (%(dates)s::date[])
    WINDOW points AS (PARTITION BY merchant_id, date, metric_type ORDER BY held_since)
), broken AS (
    SELECT date, merchant_id, metric_type
    FROM point
    WHERE next_value < metric_value AND NOT correction
    UNION
    SELECT l.date, l.merchant_id, l.metric_type
    FROM (SELECT * FROM point WHERE next_value IS NULL) AS l
    FULL JOIN (
        SELECT date, merchant_id, metric_type, metric_value, updated_at
        FROM merchant_usage
        WHERE date = ANY (%(dates)s::date[]) AND EXISTS (SELECT FROM point)
    ) AS m ON m.merchant_id = l.merchant_id AND m.date = l.date AND m.metric_type = l.metric_type
    WHERE coalesce(l.metric_value, -1) >= 0
      AND coalesce((l.metric_value > m.metric_value AND NOT l.correction) OR l.held_since >= m.updated_at, true)
)
SELECT date, number, merchant_id, metric_type
FROM (
    SELECT date, merchant_id, metric_type, count(*) OVER (PARTITION BY date) AS number,
           row_number() OVER (PARTITION BY date ORDER BY merchant_id, metric_type) AS n
    FROM broken
) AS numbered
WHERE n <= %(limit)s
ORDER BY date, merchant_id, metric_type;
