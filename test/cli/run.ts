import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
/** The entry of the command `voxtorch`. */
export const main = here('../../dist/cli/main.js')

export interface Ending {
  status: number
  stdout: string
  stderr: string
}

/** What `voxtorch WORDS…` ends with for each list of words, all run by one process, one after another. */
export async function voxtorch(
  commands: readonly (readonly string[])[],
  env: Record<string, string> = {},
): Promise<Ending[]> {
  const { stdout, stderr } = await new Promise<{ stdout: string; stderr: string }>((resolve, reject) => {
    const options = { env: { ...process.env, ...env }, maxBuffer: 2 ** 26 }
    const child = execFile(process.execPath, [here('runs.mjs'), main], options, (error, stdout, stderr) =>
      error ? reject(error) : resolve({ stdout, stderr }),
    )
    child.stdin?.end(JSON.stringify(commands))
  })
  expect(stderr).toBe('')
  const endings: Ending[] = JSON.parse(stdout)
  expect(endings).toHaveLength(commands.length)
  return endings
}
