-- What PostgreSQL holds of some pages of keys, of each in one text: ':' for each merchant, and then ':metric:counter' for each of its rows, by metric.
-- Redis' answers are put together in the same way, and a thousand counters are compared by comparing two texts. No row
-- crosses the line by itself, which would take three times as long. A name with a ':' in it could forge such a text, and no
-- row of ours has one: the number of rows tells, as each brings two.
-- Each merchant's rows are found by the primary key, so that other days and other merchants cost nothing. The date is a
-- parameter of its own, so that the planner can leave out the partitions of other months.
-- Several pages at once, because no statement of ours is prepared: to parse and plan this one takes a fifth of its time for a page.
-- Parameters: date; groups (json: an array of page, first and last metric type, merchant_ids).
-- Returns of each page, in their order, the text (bytea, UTF-8), how many rows there are, and whether any of them carries something.
SELECT convert_to(coalesce(string_agg(concat(':', held.counters), '' ORDER BY g.n, k.n), ''), 'UTF8'),
       coalesce(sum(held.number), 0)::bigint,
       coalesce(bool_or(held.carries), false)
FROM ROWS FROM (
    json_to_recordset(%(groups)s::json) AS (page int, first text, last text, merchant_ids text[])
) WITH ORDINALITY AS g (page, first, last, merchant_ids, n)
CROSS JOIN unnest(g.merchant_ids) WITH ORDINALITY AS k (merchant_id, n)
CROSS JOIN LATERAL (
    SELECT string_agg(':' || metric_type || ':' || (metric_value - carried), '') AS counters, count(*) AS number,
           bool_or(carried <> 0) AS carries
    FROM (
        SELECT metric_type, metric_value, carried
        FROM merchant_usage m
        WHERE m.merchant_id = k.merchant_id AND m.date = %(date)s
          AND m.metric_type >= g.first COLLATE "C" AND m.metric_type <= g.last COLLATE "C"
        ORDER BY metric_type COLLATE "C"
    ) AS ordered
) AS held
GROUP BY g.page
ORDER BY g.page;
