-- Forget the servers that no run has seen for a month. Parameters: now.
DELETE FROM usage_source WHERE seen_at < %(now)s::timestamptz - interval '30 days';
