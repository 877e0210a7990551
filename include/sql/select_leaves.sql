-- The leaves of the Merkle tree over a date's rows as they are now, a thousand merchants a row. A leaf is the SHA-256 of a byte 0,
-- the merchant's id and its counters by metric, each text with its length before it, so that no two merchants have the same bytes
-- whatever an id holds: see docs/reference/seals.md.
-- Hashed here, because only a hash a merchant crosses the line then. The order stands within each aggregate, too: parallel workers
-- would not keep that of the rows. COLLATE "C", because a table of the application may have another order.
-- Parameters: date. Returns page, merchant_ids, totals, leaves (one bytea), counters (how many).
SELECT page,
       array_agg(merchant_id ORDER BY merchant_id) AS merchant_ids,
       array_agg(total ORDER BY merchant_id) AS totals,
       string_agg(leaf, ''::bytea ORDER BY merchant_id) AS leaves,
       sum(counters)::bigint AS counters
FROM (
    SELECT (row_number() OVER (ORDER BY merchant_id) - 1) / 1000 AS page, merchant_id, counters, total,
           sha256('\x00'::bytea || convert_to(octet_length(merchant_id) || ':' || merchant_id || ',' || held, 'UTF8')) AS leaf
    FROM (
        SELECT merchant_id, count(*) AS counters, sum(metric_value) AS total,
               string_agg(
                   octet_length(metric_type) || ':' || metric_type || ',' || metric_value || ' ' || carried || ';',
                   '' ORDER BY metric_type
               ) AS held
        FROM (
            SELECT merchant_id COLLATE "C" AS merchant_id, metric_type COLLATE "C" AS metric_type, metric_value, carried
            FROM merchant_usage
            WHERE date = %(date)s
        ) AS rows_of_date
        GROUP BY merchant_id
    ) AS of_merchants
) AS numbered
GROUP BY page
ORDER BY page;
