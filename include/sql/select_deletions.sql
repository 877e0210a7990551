-- What a clean-up that was cut short was about to delete, or one that is at work: usually nothing. No parameters.
SELECT merchant_id, date, metric_type
FROM usage_deletion
ORDER BY merchant_id, date, metric_type;
