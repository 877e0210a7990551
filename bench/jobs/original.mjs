// The design that this project replaces, in its own stack: SCAN 100, then a GET and a transaction for each key.
import Redis from "ioredis";
import pg from "pg";

const [redisUrl, postgresUrl, day] = [process.env.USAGE_REDIS_URL, process.env.USAGE_POSTGRES_URL, process.argv[2]];
const UPSERT = `INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value) VALUES ($1, $2, $3, $4)
ON CONFLICT (merchant_id, date, metric_type) DO UPDATE SET metric_value = EXCLUDED.metric_value, updated_at = now()`;

const redis = new Redis(redisUrl);
const client = new pg.Client({ connectionString: postgresUrl });
await client.connect();
let cursor = "0";
do {
    const [next, keys] = await redis.scan(cursor, "MATCH", "usage:*", "COUNT", 100);
    for (const key of keys) {
        const [, merchant, date, metric] = key.match(/^usage:(.*):([^:]*):([^:]*)$/s);
        if (date !== day) continue;
        const value = await redis.get(key);
        await client.query("BEGIN");
        await client.query(UPSERT, [merchant, date, metric, value]);
        await client.query("COMMIT");
    }
    cursor = next;
} while (cursor !== "0");
await client.end();
redis.disconnect();
