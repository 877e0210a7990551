-- Forget letters that were resolved long ago, and the oldest beyond so many, a batch at a time. What a person decided stays.
-- Parameters: before (timestamptz), most (bigint: letters that are kept), limit (bigint: rows of a batch).
DELETE FROM usage_dead_letter
WHERE id IN (
    SELECT id
    FROM usage_dead_letter
    WHERE resolved_at IS NOT NULL AND decision IS NULL
      AND resolved_at < greatest(%(before)s::timestamptz, (
          SELECT resolved_at
          FROM usage_dead_letter
          WHERE resolved_at IS NOT NULL AND decision IS NULL
          ORDER BY resolved_at DESC
          OFFSET %(most)s
          LIMIT 1
      ))
    ORDER BY resolved_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
);
