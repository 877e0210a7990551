-- Write rows that are locked. Parameters, arrays of equal length: merchant_ids (text[]), dates (date[]),
-- metric_types (text[]), metric_values (bigint[]), carried (bigint[]), corrections (boolean[]: it was decided, not counted); days
-- (date[]): the dates, each once, so that no other month is locked; and history (boolean: whether it is kept).
-- What a row held before, and since when, goes into usage_hourly_history, for a correction in any case: without its mark the
-- differences of a counter would say that it fell. updated_at is when the value changed, and never goes back.
-- Returns the key of each row that was written.
WITH written AS (
    UPDATE merchant_usage AS m
    SET metric_value = k.metric_value, carried = k.carried,
        updated_at = CASE
            WHEN k.metric_value = held.metric_value THEN m.updated_at
            ELSE greatest(now(), m.updated_at + interval '1 microsecond')
        END
    FROM unnest(%(merchant_ids)s::text[], %(dates)s::date[], %(metric_types)s::text[], %(metric_values)s::bigint[],
                %(carried)s::bigint[], %(corrections)s::boolean[])
        AS k (merchant_id, date, metric_type, metric_value, carried, correction)
    JOIN merchant_usage AS held
        ON held.merchant_id = k.merchant_id AND held.date = k.date AND held.metric_type = k.metric_type
    WHERE m.merchant_id = k.merchant_id AND m.date = k.date AND m.metric_type = k.metric_type
      AND m.date = ANY (%(days)s::date[]) AND held.date = ANY (%(days)s::date[])
    RETURNING m.merchant_id, m.date, m.metric_type, held.metric_value, held.updated_at, k.correction,
              held.metric_value <> k.metric_value AS changed
), kept AS (
    INSERT INTO usage_hourly_history (merchant_id, date, metric_type, held_since, metric_value, correction)
    SELECT merchant_id, date, metric_type, updated_at, metric_value, correction
    FROM written
    WHERE changed AND (correction OR %(history)s) AND updated_at IS NOT NULL
    ORDER BY merchant_id, date, metric_type
    ON CONFLICT DO NOTHING
)
SELECT merchant_id, date, metric_type
FROM written;
