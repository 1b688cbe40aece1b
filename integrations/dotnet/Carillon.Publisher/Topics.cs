using System;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Carillon
{
    /// <summary>Topics: <c>area</c> or <c>area:key</c>, with keys encoded the way every node expects them.</summary>
    public static class Topics
    {
        /// <summary>The longest key, in bytes of UTF-8, after encoding.</summary>
        public const int MaxKeyBytes = 200;

        private static readonly Regex Area = new Regex("^[a-z][a-z0-9-]{0,31}\\z", RegexOptions.CultureInvariant);
        private static readonly Encoding Utf8 = new UTF8Encoding(false, throwOnInvalidBytes: true);

        /// <summary>The topic of a whole area.</summary>
        public static string Of(string area)
        {
            if (!Area.IsMatch(area))
                throw new ArgumentException($"'{area}' cannot be an area: use a lower-case letter, then up to 31 lower-case letters, digits or hyphens", nameof(area));
            return area;
        }

        /// <summary>The topic of one thing in an area: <c>Topics.Of("comments", 42)</c> is <c>comments:42</c>.</summary>
        public static string Of(string area, object key) => Of(area) + ":" + EncodeKey(Convert.ToString(key, CultureInfo.InvariantCulture) ?? "");

        /// <summary>The topic of one editor in a private area. <paramref name="sub"/> is exactly what the editor's token says; where
        /// nodes have <c>auth.fold_subject = true</c>, it is <see cref="Folded"/>.</summary>
        public static string Private(string sub, string area = "notifications")
        {
            foreach (var c in sub)
                if (char.IsControl(c)) throw new ArgumentException("an editor's name has no control characters", nameof(sub));
            return Of(area, sub);
        }

        /// <summary>An editor's name in lower case, letter by letter, as nodes with <c>auth.fold_subject = true</c> compare it. .NET
        /// leaves the I with a dot as it is; its lower case in Unicode's simple mapping is i.</summary>
        public static string Folded(string sub) => sub.ToLowerInvariant().Replace('\u0130', 'i');

        /// <summary>Percent-encodes a key: only what must be, with upper-case hexadecimal.</summary>
        public static string EncodeKey(string value)
        {
            var key = new StringBuilder(value.Length);
            foreach (var c in value)
            {
                if (MustBeEncoded(c))
                    foreach (var b in Utf8.GetBytes(c.ToString())) key.Append('%').Append(b.ToString("X2", CultureInfo.InvariantCulture));
                else
                    key.Append(c);
            }
            int size;
            try { size = Utf8.GetByteCount(key.ToString()); }
            catch (EncoderFallbackException) { throw new ArgumentException("a topic's key holds half of a surrogate pair", nameof(value)); }
            if (size < 1 || size > MaxKeyBytes)
                throw new ArgumentException($"a topic's key has {size} bytes encoded, allowed are 1 to {MaxKeyBytes}", nameof(value));
            return key.ToString();
        }

        // Space, percent, what means something in topic lists and channel names, and all control characters (C0, DEL, C1).
        private static bool MustBeEncoded(char c) => c <= ' ' || " %*,{}".IndexOf(c) >= 0 || (c >= '\u007f' && c <= '\u009f');
    }
}
