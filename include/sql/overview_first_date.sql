-- The oldest date that any run was for; NULL: there was none. No parameters.
SELECT min(usage_date) FROM usage_run;
