import { compileTypeScript } from '../scripts/bootstrap.mjs'

/** `npx vitest` after an edit of lib/: compile it, and leave the type check to `npm test` and the editor. */
export async function setup() {
  await compileTypeScript({ check: false })
}
