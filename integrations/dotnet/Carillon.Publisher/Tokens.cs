using System;
using System.Collections.Generic;
using System.Linq;
using System.Security.Cryptography;
using System.Text;

namespace Carillon
{
    /// <summary>Tokens: what an editor's browser shows to a node.</summary>
    public static class Tokens
    {
        /// <summary>The shortest secret that nodes accept.</summary>
        public const int MinSecretBytes = 32;

        /// <summary>A token (HS256) for one editor.</summary>
        /// <param name="secret">The nodes' <c>auth.secret</c>.</param>
        /// <param name="sub">Names the editor: best is an id that never changes.</param>
        /// <param name="topics">What they may follow: <c>comments:42</c>, <c>content:s1/*</c>, <c>comments:*</c> or <c>*</c>.</param>
        /// <param name="lifetime">Ten minutes by default; the browser module fetches the next one in time.</param>
        /// <param name="jti">The sign-in, so that it can be ended alone.</param>
        public static string Mint(string secret, string sub, IEnumerable<string>? topics = null, TimeSpan? lifetime = null, string? jti = null)
        {
            var key = Encoding.UTF8.GetBytes(secret);
            if (key.Length < MinSecretBytes) throw new ArgumentException($"the secret has {key.Length} bytes, nodes accept {MinSecretBytes} or more", nameof(secret));
            var now = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
            var claims = new Dictionary<string, object?>
            {
                ["sub"] = sub,
                ["iat"] = now,
                ["exp"] = now + (long)(lifetime ?? TimeSpan.FromMinutes(10)).TotalSeconds,
                ["jti"] = jti ?? Guid.NewGuid().ToString("N"),
            };
            if (topics != null) claims["topics"] = topics.ToList();
            var signed = Encoded("{\"alg\":\"HS256\",\"typ\":\"JWT\"}") + "." + Encoded(Json.Write(claims));
            using var hmac = new HMACSHA256(key);
            return signed + "." + Encoded(hmac.ComputeHash(Encoding.ASCII.GetBytes(signed)));
        }

        private static string Encoded(string text) => Encoded(Encoding.UTF8.GetBytes(text));

        private static string Encoded(byte[] bytes) => Convert.ToBase64String(bytes).TrimEnd('=').Replace('+', '-').Replace('/', '_');
    }
}
