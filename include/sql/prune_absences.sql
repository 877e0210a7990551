-- Forget what was gone on dates before this one. Parameters: before (date).
DELETE FROM usage_absence WHERE date < %(before)s;
