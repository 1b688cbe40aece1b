<?php
/**
 * Publishes events for Carillon from PHP 8 (the extension phpredis: `apt install php-redis`, `pecl install redis`).
 *
 *   $publisher = new CarillonPublisher('redis', 6379, ['carillon-publisher', 'secret'], source: 'cms-01');
 *   $publisher->record('comments:42', ['type' => 'comment.created', 'data' => ['project' => 42]]);
 *   $publisher->live('comments:42', ['type' => 'activity.updated']);
 *
 * Publish after your transaction has committed: editors refetch as soon as the event reaches them.
 */
declare(strict_types=1);

/** The event is not recorded; the message says why and what to do. */
final class NotPublished extends RuntimeException
{
}

/** Publishes to the Redis that Carillon's nodes listen to. */
final class CarillonPublisher
{
    /** Answers that pass by themselves: Redis is starting, failing over, short of memory or of replicas. */
    private const PASSING = '/^(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|OOM)/';
    /** Answers that say who may do what; no attempt changes them. */
    private const FORBIDDEN = '/^(NOPERM|NOAUTH|WRONGPASS)/';

    private ?Redis $redis = null;

    /**
     * @param array{0: string, 1: string}|null $login    user and password
     * @param float                            $patience seconds until `record` gives up (well under five minutes, the
     *                                                   time for which Carillon recognises an id)
     */
    public function __construct(
        private string $host,
        private int $port,
        private ?array $login,
        private string $source,
        private string $prefix = 'carillon',
        private float $patience = 10.0,
    ) {
    }

    /**
     * Publishes an event that is kept for editors who are away; returns its log id, `<epoch>-<seq>`.
     *
     * After an error nobody knows whether Redis had already taken it. So the event has an `id` before the first attempt
     * and keeps it: Carillon answers a repetition with the first id and delivers nothing twice.
     */
    public function record(string $topic, array $event): string
    {
        $event += ['id' => bin2hex(random_bytes(16)), 'source' => $this->source, 'time' => gmdate('Y-m-d\TH:i:s\Z')];
        $deadline = microtime(true) + $this->patience;
        for ($pause = 0.05;; $pause = min($pause * 2, 1.0)) {
            try {
                return $this->send('FCALL', "{$this->prefix}_publish", '1', "{$this->prefix}:$topic", self::json($event));
            } catch (RedisException $trouble) {
                if (!self::passes($trouble) || microtime(true) + $pause > $deadline) {
                    throw $this->notPublished($trouble);
                }
            }
            usleep((int) ($pause * random_int(500_000, 1_000_000)));
        }
    }

    /**
     * Publishes to whoever is connected at this moment; nothing is kept, so nothing is repeated either. Returns how many
     * nodes it reached: 0 where none follows the topic.
     */
    public function live(string $topic, array $event): int
    {
        try {
            return $this->send('PUBLISH', "{$this->prefix}:$topic", self::json($event));
        } catch (RedisException $trouble) {
            throw $this->notPublished($trouble);
        }
    }

    /** Sends a command. After any trouble the connection is not used again: the next attempt finds today's master. */
    private function send(string ...$command): mixed
    {
        $redis = $this->redis ?? $this->connect();
        $this->redis = null;
        $redis->clearLastError();
        $answer = $redis->rawCommand(...$command);
        if ($answer === false) {
            throw new RedisException($redis->getLastError() ?? 'the connection to Redis was lost');
        }
        $this->redis = $redis;
        return $answer;
    }

    private function connect(): Redis
    {
        $redis = new Redis();
        $redis->connect($this->host, $this->port, 2.0, null, 0, 2.0);
        // The extension would repeat commands by itself; here it is decided above.
        $redis->setOption(Redis::OPT_MAX_RETRIES, 0);
        if ($this->login !== null) {
            $redis->auth($this->login);
        }
        return $redis;
    }

    private static function json(array $event): string
    {
        return json_encode($event, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    }

    private static function functionIsMissing(RedisException $trouble): bool
    {
        return stripos($trouble->getMessage(), 'function not found') !== false;
    }

    /**
     * Whether another attempt makes sense. What the function refuses (TOPIC, EVENT) or the user may not do (NOPERM) stays
     * refused; a missing function is loaded by the next node that connects; everything but an answer is the network.
     */
    private static function passes(RedisException $trouble): bool
    {
        $text = $trouble->getMessage();
        if (preg_match(self::FORBIDDEN, $text)) {
            return false;
        }
        $isAnswer = preg_match('/^[A-Z]{3,} /', $text) === 1;
        return !$isAnswer || self::functionIsMissing($trouble) || preg_match(self::PASSING, $text) === 1;
    }

    private function notPublished(RedisException $trouble): NotPublished
    {
        $text = self::functionIsMissing($trouble)
            ? "Redis has no function {$this->prefix}_publish: start a Carillon node, which loads it, or load it by hand: "
                . 'carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE'
            : "Redis did not take the event: {$trouble->getMessage()}";
        return new NotPublished($text, 0, $trouble);
    }
}

// `php CarillonPublisher.php record|live TOPIC EVENT`, with CARILLON_REDIS, CARILLON_SOURCE and CARILLON_PATIENCE.
if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    [, $how, $topic, $event] = $argv + [null, null, null, null];
    if (!in_array($how, ['record', 'live'], true) || $event === null) {
        fwrite(STDERR, "usage: php CarillonPublisher.php record|live TOPIC EVENT\n");
        exit(1);
    }
    $url = parse_url(getenv('CARILLON_REDIS') ?: 'redis://127.0.0.1:6379');
    $login = isset($url['user']) ? [urldecode($url['user']), urldecode($url['pass'] ?? '')] : null;
    $patience = (float) (getenv('CARILLON_PATIENCE') ?: 10);
    $source = getenv('CARILLON_SOURCE') ?: 'example';
    $publisher = new CarillonPublisher($url['host'], $url['port'] ?? 6379, $login, $source, patience: $patience);
    try {
        echo $publisher->$how($topic, (array) json_decode($event, false, 64, JSON_THROW_ON_ERROR)), "\n";
    } catch (NotPublished $trouble) {
        fwrite(STDERR, $trouble->getMessage() . "\n");
        exit(1);
    }
}
