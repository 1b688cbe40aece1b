using System;
using System.Collections;
using System.Globalization;
using System.Text;

namespace Carillon
{
    /// <summary>Writes the few kinds of values that events and tokens hold, so that the library needs no package but the Redis client.</summary>
    internal static class Json
    {
        internal static string Write(object? value)
        {
            var text = new StringBuilder();
            Append(text, value);
            return text.ToString();
        }

        private static void Append(StringBuilder text, object? value)
        {
            switch (value)
            {
                case null: text.Append("null"); break;
                case string s: AppendString(text, s); break;
                case bool b: text.Append(b ? "true" : "false"); break;
                case double d when double.IsNaN(d) || double.IsInfinity(d): throw new ArgumentException("JSON has no NaN and no infinity");
                case float f when float.IsNaN(f) || float.IsInfinity(f): throw new ArgumentException("JSON has no NaN and no infinity");
                case double d: text.Append(d.ToString("R", CultureInfo.InvariantCulture)); break;
                case float f: text.Append(f.ToString("R", CultureInfo.InvariantCulture)); break;
                case byte _: case sbyte _: case short _: case ushort _: case int _: case uint _: case long _: case ulong _: case decimal _:
                    text.Append(((IFormattable)value).ToString(null, CultureInfo.InvariantCulture)); break;
                case Guid g: AppendString(text, g.ToString()); break;
                case IDictionary members: AppendObject(text, members); break;
                case IEnumerable items: AppendArray(text, items); break;
                default: throw new ArgumentException($"an event holds strings, numbers, booleans, dictionaries and lists, not {value.GetType()}");
            }
        }

        private static void AppendObject(StringBuilder text, IDictionary members)
        {
            var separator = '{';
            foreach (DictionaryEntry member in members)
            {
                text.Append(separator);
                AppendString(text, (string)member.Key);
                text.Append(':');
                Append(text, member.Value);
                separator = ',';
            }
            text.Append(separator == '{' ? "{}" : "}");
        }

        private static void AppendArray(StringBuilder text, IEnumerable items)
        {
            var separator = '[';
            foreach (var item in items)
            {
                text.Append(separator);
                Append(text, item);
                separator = ',';
            }
            text.Append(separator == '[' ? "[]" : "]");
        }

        private static void AppendString(StringBuilder text, string value)
        {
            text.Append('"');
            foreach (var c in value)
            {
                if (c == '"' || c == '\\') text.Append('\\').Append(c);
                else if (c < ' ') text.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture));
                else text.Append(c);
            }
            text.Append('"');
        }
    }
}
