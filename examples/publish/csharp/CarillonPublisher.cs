// Publishes events for Carillon from .NET (`dotnet add package StackExchange.Redis`, 2.6 or newer).
//
// NOT RUN HERE: the tests of this repository run the kits for Python, Node.js and PHP; this one does the same and has
// not been compiled in them.
//
//   var redis = await ConnectionMultiplexer.ConnectAsync("redis:6379,user=carillon-publisher,password=secret,abortConnect=false");
//   var publisher = new CarillonPublisher(redis, source: "cms-01");
//   await publisher.RecordAsync("comments:42", new CarillonEvent("comment.created") { Data = new { project = 42 } });
//   await publisher.LiveAsync("comments:42", new CarillonEvent("activity.updated"));
//
// Publish after your transaction has committed: editors refetch as soon as the event reaches them.

using System;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Threading;
using System.Threading.Tasks;
using StackExchange.Redis;

namespace Carillon
{
    /// <summary>An event: what changed, never the content itself.</summary>
    public sealed class CarillonEvent
    {
        public CarillonEvent(string type) { Type = type; }

        [JsonPropertyName("type")] public string Type { get; }

        /// <summary>With the source: what a repetition is recognised by. Decided when the event is made, not when it is sent.</summary>
        [JsonPropertyName("id")] public string Id { get; set; } = Guid.NewGuid().ToString();

        [JsonPropertyName("source")] public string Source { get; set; }
        [JsonPropertyName("time")] public string Time { get; set; } = DateTime.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'");

        /// <summary>The user who did it.</summary>
        [JsonPropertyName("actor")] public string Actor { get; set; }

        /// <summary>The client id of the tab that caused it (`rt.id`), if the request brought one: that tab ignores its echo.</summary>
        [JsonPropertyName("origin")] public string Origin { get; set; }

        [JsonPropertyName("data")] public object Data { get; set; }
    }

    /// <summary>The event is not recorded; the message says why and what to do.</summary>
    public sealed class NotPublishedException : Exception
    {
        public NotPublishedException(string message, Exception cause) : base(message, cause) { }
    }

    /// <summary>Publishes to the Redis that Carillon's nodes listen to. One is enough for a process.</summary>
    public sealed class CarillonPublisher
    {
        private static readonly string[] Passing =
            { "LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "OOM" };

        private static readonly JsonSerializerOptions Json =
            new JsonSerializerOptions { DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull };

        private readonly IConnectionMultiplexer redis;
        private readonly string source, prefix;
        private readonly TimeSpan patience;

        /// <param name="redis">Connected with `abortConnect=false`, so that it comes back by itself.</param>
        /// <param name="source">Names this publisher.</param>
        /// <param name="prefix">`redis.prefix` of the nodes.</param>
        /// <param name="patience">Until `RecordAsync` gives up: well under five minutes, the time for which Carillon
        /// recognises an id. Not given: 10 seconds.</param>
        public CarillonPublisher(IConnectionMultiplexer redis, string source, string prefix = "carillon", TimeSpan? patience = null)
        {
            this.redis = redis;
            this.source = source;
            this.prefix = prefix;
            this.patience = patience ?? TimeSpan.FromSeconds(10);
        }

        /// <summary>
        /// Publishes an event that is kept for editors who are away; returns its log id, `epoch-seq`. After an error
        /// nobody knows whether Redis had already taken it; the id stays the same, so Carillon answers a repetition with
        /// the first log id and delivers nothing twice.
        /// </summary>
        public async Task<string> RecordAsync(string topic, CarillonEvent what, CancellationToken stop = default)
        {
            var text = Text(what);
            var deadline = DateTime.UtcNow + patience;
            var random = new Random();
            for (var pause = 50.0; ; pause = Math.Min(pause * 2, 1000))
            {
                try
                {
                    // RedisKey, not string: that is what finds the right master of a cluster.
                    var answer = await redis.GetDatabase()
                        .ExecuteAsync("FCALL", prefix + "_publish", 1, (RedisKey)(prefix + ":" + topic), text);
                    return (string)answer;
                }
                catch (Exception trouble) when (trouble is RedisException || trouble is TimeoutException)
                {
                    if (!Passes(trouble) || DateTime.UtcNow.AddMilliseconds(pause) > deadline) throw NotPublished(trouble);
                }
                await Task.Delay(TimeSpan.FromMilliseconds(pause * (0.5 + random.NextDouble() / 2)), stop);
            }
        }

        /// <summary>
        /// Publishes to whoever is connected at this moment; nothing is kept, so nothing is repeated either. Returns how
        /// many nodes it reached: 0 where none follows the topic. (On Redis Cluster: `RedisChannel.Sharded`, 2.8 or newer.)
        /// </summary>
        public async Task<long> LiveAsync(string topic, CarillonEvent what)
        {
            try
            {
                return await redis.GetSubscriber().PublishAsync(RedisChannel.Literal(prefix + ":" + topic), Text(what));
            }
            catch (Exception trouble) when (trouble is RedisException || trouble is TimeoutException)
            {
                throw NotPublished(trouble);
            }
        }

        private string Text(CarillonEvent what)
        {
            what.Source = what.Source ?? source;
            return JsonSerializer.Serialize(what, Json);
        }

        private static bool FunctionIsMissing(Exception trouble) =>
            trouble is RedisServerException && trouble.Message.IndexOf("function not found", StringComparison.OrdinalIgnoreCase) >= 0;

        /// <summary>
        /// Whether another attempt makes sense. What the function refuses (TOPIC, EVENT) or the user may not do (NOPERM)
        /// stays refused; a missing function is loaded by the next node that connects; the rest is the network.
        /// </summary>
        private static bool Passes(Exception trouble)
        {
            if (!(trouble is RedisServerException)) return true;
            return FunctionIsMissing(trouble) || Array.Exists(Passing, code => trouble.Message.StartsWith(code, StringComparison.Ordinal));
        }

        private Exception NotPublished(Exception trouble) => new NotPublishedException(
            FunctionIsMissing(trouble)
                ? "Redis has no function " + prefix + "_publish: start a Carillon node, which loads it, or load it by hand: "
                  + "carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE"
                : "Redis did not take the event: " + trouble.Message,
            trouble);
    }
}
