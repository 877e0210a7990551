-- All queries of this transaction see the database as it was at the first of them.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
