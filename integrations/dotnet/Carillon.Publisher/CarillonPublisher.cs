using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using StackExchange.Redis;

namespace Carillon
{
    /// <summary>Settings of a publisher.</summary>
    public sealed class CarillonOptions
    {
        /// <summary>Names this publisher in its events.</summary>
        public string? Source { get; set; }

        /// <summary>The nodes' <c>redis.prefix</c>.</summary>
        public string Prefix { get; set; } = "carillon";

        /// <summary>How many events may wait.</summary>
        public int Queue { get; set; } = 10_000;

        /// <summary>How long <see cref="CarillonPublisher.RecordAsync"/> tries. Keep it well under five minutes, the time for which an id is recognised.</summary>
        public TimeSpan Patience { get; set; } = TimeSpan.FromSeconds(10);

        /// <summary>Told of events that were given up: by <see cref="CarillonPublisher.Enqueue"/> alone, which has nobody to tell.</summary>
        public Action<NotPublishedException>? OnLost { get; set; }
    }

    /// <summary>An event was not recorded. The message says why, and what to do.</summary>
    public sealed class NotPublishedException : Exception
    {
        internal NotPublishedException(string message, Exception? cause, bool temporary) : base(message, cause) { IsTemporary = temporary; }

        /// <summary>Whether trying later may help.</summary>
        public bool IsTemporary { get; }
    }

    /// <summary>Publishes to the Redis that the nodes listen to. One is enough for a process; threads may share it.</summary>
    public sealed class CarillonPublisher : IDisposable
    {
        private static readonly string[] Temporary =
            { "LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF", "OOM" };

        private readonly IConnectionMultiplexer redis;
        private readonly CarillonOptions options;
        private readonly CancellationTokenSource stop = new CancellationTokenSource();
        private readonly LinkedList<Waiting> waiting = new LinkedList<Waiting>();
        private readonly SemaphoreSlim added = new SemaphoreSlim(0);
        private readonly Dictionary<string, Timer> reports = new Dictionary<string, Timer>();

        private sealed class Waiting
        {
            internal string Topic = "";
            internal string Text = "";
            internal DateTime Since = DateTime.UtcNow;
        }

        /// <param name="configuration">As StackExchange.Redis reads it, <c>redis:6379,user=…,password=…</c>.</param>
        /// <param name="options">Settings.</param>
        public CarillonPublisher(string configuration, CarillonOptions? options = null)
            : this(ConnectionMultiplexer.Connect(configuration + ",abortConnect=false"), options) { }

        /// <param name="redis">Connected with <c>abortConnect=false</c>, so that it comes back by itself.</param>
        /// <param name="options">Settings.</param>
        public CarillonPublisher(IConnectionMultiplexer redis, CarillonOptions? options = null)
        {
            this.redis = redis;
            this.options = options ?? new CarillonOptions();
            _ = Task.Run(DrainAsync);
        }

        /// <summary>
        /// Puts an event into the queue and returns at once: a request never waits for Redis. False where too many wait already.
        /// Call it after the transaction has committed.
        /// </summary>
        public bool Enqueue(string topic, CarillonEvent what) => Enqueue(new[] { topic }, what);

        /// <summary>One event to many topics: to all of them, or false and to none.</summary>
        public bool Enqueue(IEnumerable<string> topics, CarillonEvent what)
        {
            var names = topics.Distinct().ToList();
            if (names.Count == 0) throw new ArgumentException("an event needs at least one topic");
            var text = what.ToJson(options.Source);
            lock (waiting)
            {
                if (waiting.Count + names.Count > options.Queue) return false;
                foreach (var name in names) waiting.AddLast(new Waiting { Topic = name, Text = text });
            }
            added.Release(names.Count);
            return true;
        }

        /// <summary>
        /// Publishes an event that is kept for editors who are away; gives its log id, <c>epoch-seq</c>. After an error nobody knows
        /// whether Redis had already taken it; the id stays the same, so a repetition is answered with the first log id and
        /// delivers nothing twice.
        /// </summary>
        public Task<string> RecordAsync(string topic, CarillonEvent what, CancellationToken cancel = default) =>
            DeliverAsync(topic, what.ToJson(options.Source), options.Patience, cancel);

        /// <summary>Publishes to whoever is connected at this moment; nothing is kept. Gives how many nodes it reached.</summary>
        public async Task<long> LiveAsync(string topic, CarillonEvent what)
        {
            try
            {
                // Redis Cluster delivers sharded messages only.
                var sharded = redis.GetEndPoints().Any(place => redis.GetServer(place).ServerType == ServerType.Cluster);
                var channel = Channel(topic);
                var answer = await redis.GetDatabase().ExecuteAsync(sharded ? "SPUBLISH" : "PUBLISH", (RedisKey)channel, what.ToJson(options.Source)).ConfigureAwait(false);
                return (long)answer;
            }
            catch (Exception trouble) when (IsOfRedis(trouble)) { throw NotPublished(trouble); }
        }

        /// <summary>Vouches for a source from now on: when this process falls silent, editors are told.</summary>
        public void Report(string name)
        {
            lock (reports)
            {
                if (reports.ContainsKey(name)) return;
                reports[name] = new Timer(_ => _ = ReportAsync(name, 15), null, TimeSpan.Zero, TimeSpan.FromSeconds(5));
            }
        }

        /// <summary>Says good-bye for the reported sources and stops. What waits is lost.</summary>
        public void Dispose()
        {
            lock (reports)
            {
                foreach (var report in reports)
                {
                    report.Value.Dispose();
                    ReportAsync(report.Key, 0).Wait(TimeSpan.FromSeconds(2));
                }
                reports.Clear();
            }
            stop.Cancel();
        }

        // In order, one at a time: a repetition never changes the order of a topic.
        private async Task DrainAsync()
        {
            try
            {
                while (true)
                {
                    await added.WaitAsync(stop.Token).ConfigureAwait(false);
                    Waiting next;
                    lock (waiting) next = waiting.First!.Value;
                    await DrainAsync(next).ConfigureAwait(false);
                    lock (waiting) waiting.RemoveFirst();
                }
            }
            catch (OperationCanceledException) { }
        }

        private async Task DrainAsync(Waiting next)
        {
            while (true)
            {
                try
                {
                    await DeliverAsync(next.Topic, next.Text, options.Patience, stop.Token).ConfigureAwait(false);
                    return;
                }
                catch (NotPublishedException trouble)
                {
                    // Whoever listens may fail, and publishing goes on.
                    try { options.OnLost?.Invoke(trouble); }
                    catch (Exception broken) { Trace.TraceError("Carillon: OnLost failed: " + broken); }
                    // An outage is waited for; what is refused stays refused.
                    if (!trouble.IsTemporary) return;
                }
            }
        }

        private async Task<string> DeliverAsync(string topic, string text, TimeSpan patience, CancellationToken cancel)
        {
            var deadline = DateTime.UtcNow + patience;
            var random = new Random();
            for (var pause = 50.0; ; pause = Math.Min(pause * 2, 1000))
            {
                try
                {
                    // RedisKey, not string: that is what finds the right master of a cluster.
                    var answer = await redis.GetDatabase().ExecuteAsync("FCALL", options.Prefix + "_publish", 1, (RedisKey)Channel(topic), text).ConfigureAwait(false);
                    return (string)answer!;
                }
                catch (Exception trouble) when (IsOfRedis(trouble))
                {
                    if (!IsTemporary(trouble) || DateTime.UtcNow.AddMilliseconds(pause) > deadline) throw NotPublished(trouble);
                }
                await Task.Delay(TimeSpan.FromMilliseconds(pause * (0.5 + random.NextDouble() / 2)), cancel).ConfigureAwait(false);
            }
        }

        private async Task ReportAsync(string name, int seconds)
        {
            double oldest;
            lock (waiting) oldest = waiting.Count == 0 ? 0 : (DateTime.UtcNow - waiting.First!.Value.Since).TotalMilliseconds;
            var key = (RedisKey)(options.Prefix + ":sources");
            try { await redis.GetDatabase().ExecuteAsync("FCALL", options.Prefix + "_source", 1, key, name, seconds, (long)oldest).ConfigureAwait(false); }
            catch (Exception trouble) when (IsOfRedis(trouble)) { /* silence is what tells */ }
        }

        private string Channel(string topic) => options.Prefix + ":" + topic;

        // A RedisCommandException is of a family of its own.
        private static bool IsOfRedis(Exception trouble) =>
            trouble is RedisException || trouble is RedisCommandException || trouble is TimeoutException || trouble is ObjectDisposedException;

        private static bool FunctionIsMissing(Exception trouble) =>
            trouble is RedisServerException && trouble.Message.IndexOf("function not found", StringComparison.OrdinalIgnoreCase) >= 0;

        // What the function refuses (TOPIC, EVENT) or the user may not do (NOPERM) stays refused; a missing function is loaded by
        // the next node that connects; the rest is the network.
        private static bool IsTemporary(Exception trouble) =>
            !(trouble is RedisServerException) || FunctionIsMissing(trouble)
            || Array.Exists(Temporary, code => trouble.Message.StartsWith(code, StringComparison.Ordinal));

        private NotPublishedException NotPublished(Exception trouble) => new NotPublishedException(
            FunctionIsMissing(trouble)
                ? $"Redis has no function {options.Prefix}_publish: start a Carillon node, which loads it, or load it by hand: carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE"
                : "Redis did not take the event: " + trouble.Message,
            trouble,
            IsTemporary(trouble));
    }
}
