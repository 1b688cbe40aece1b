// Validates an AsyncAPI document with AsyncAPI's own parser: one finding a line, exit code 1 when there is an error.
import { dirname } from 'node:path';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
const require = createRequire(`${process.env.NODE_PATH}/`);
const { Parser } = require('@asyncapi/parser');

const source = process.argv[2];
const { document, diagnostics } = await new Parser().parse(readFileSync(source, 'utf8'), { source });
for (const { severity, message, path } of diagnostics) {
  console.log(`${['error', 'warning', 'info', 'hint'][severity]}: ${path.join('.')}: ${message}`);
}
process.exitCode = document && diagnostics.every(({ severity }) => severity > 0) ? 0 : 1;
