-- Let PostgreSQL itself refuse whatever in this transaction would write.
SET TRANSACTION READ ONLY;
