-- The newest version of a date of which leaves are kept: a larger one than that of its newest seal has lost its seal. NULL: there is
-- none. Parameters: usage_date.
SELECT max(version) FROM usage_seal_page WHERE usage_date = %(usage_date)s;
