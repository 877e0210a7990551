-- Whether usage was ever found: stored, or seen by a run. Asked when a scan finds none at all, so that a wrong prefix or
-- database is told apart from an API that has nothing to count just now.
SELECT EXISTS (SELECT FROM merchant_usage) OR EXISTS (SELECT FROM usage_run WHERE keys_scanned > 0);
