-- The commit of this transaction, and of all before it, is on disk when it returns, whatever the server or the role has set.
SET LOCAL synchronous_commit TO on;
