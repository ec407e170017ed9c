// Tests that read the sources of lib, which TypeScript parses once for all of them.
import './sources/types.js'
import './sources/regular-expressions.js'
import './sources/advice.js'
