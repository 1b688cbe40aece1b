using System;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Carillon
{
    /// <summary>An event: what changed, never the content itself.</summary>
    public sealed class CarillonEvent
    {
        /// <summary>The largest event, as JSON in UTF-8.</summary>
        public const int MaxBytes = 65536;

        /// <param name="type"><c>noun.verb</c>, for example <c>comment.created</c>.</param>
        public CarillonEvent(string type) { Type = type; }

        /// <summary><c>noun.verb</c>.</summary>
        public string Type { get; }

        /// <summary>What a repetition is recognised by, with the source. Decided when the event is made, not when it is sent.</summary>
        public string Id { get; set; } = Guid.NewGuid().ToString();

        /// <summary>When it happened.</summary>
        public DateTimeOffset Time { get; set; } = DateTimeOffset.UtcNow;

        /// <summary>The publisher; by default that of <see cref="CarillonOptions.Source"/>.</summary>
        public string? Source { get; set; }

        /// <summary>The user who did it.</summary>
        public string? Actor { get; set; }

        /// <summary>The page that began the change (<c>rt.id</c>): it drops its own echo.</summary>
        public string? Origin { get; set; }

        /// <summary>Ids, types and counts.</summary>
        public IDictionary<string, object?> Data { get; set; } = new Dictionary<string, object?>();

        internal string ToJson(string? source)
        {
            var members = new Dictionary<string, object?>
            {
                ["id"] = Id,
                ["type"] = Type,
                ["time"] = Time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture),
            };
            if ((Source ?? source) is string from) members["source"] = from;
            if (Actor != null) members["actor"] = Actor;
            if (Origin != null) members["origin"] = Origin;
            members["data"] = Data;
            var text = Json.Write(members);
            var size = Encoding.UTF8.GetByteCount(text);
            if (size > MaxBytes) throw new ArgumentException($"the event has {size} bytes, allowed are {MaxBytes}: say what changed, not the content itself");
            return text;
        }
    }
}
