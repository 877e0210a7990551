-- What time it is by PostgreSQL's clock, in seconds of the epoch: numeric, which no setting of the role rounds as it writes it.
SELECT extract(epoch FROM clock_timestamp());
