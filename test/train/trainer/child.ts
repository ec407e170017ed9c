import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { isTemporaryOfOthers } from '../../../lib/base/atomic.js'

/** A script in a process of its own that tells its steps, and that a test may kill. */
export interface Child {
  process: ChildProcess
  /** Lines so far, as "step 3", and the errors' text. */
  lines: string[]
  errors: () => string
  exit: Promise<{ code: number | null; signal: string | null }>
  /** The next line that matches, or undefined when the process has ended. */
  line(pattern: RegExp): Promise<string | undefined>
}

/** Runs node with these arguments. */
export function start(args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}): Child {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  const lines: string[] = []
  let errors = ''
  let seen = 0
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors += text
  })
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
  const exit = once(child, 'close').then(([code, signal]) => ({ code, signal }))
  return {
    process: child,
    lines,
    errors: () => errors,
    exit,
    async line(pattern) {
      for (;;) {
        while (seen < lines.length) {
          const line = lines[seen++] as string
          if (pattern.test(line)) return line
        }
        if (child.exitCode !== null || child.signalCode !== null) return undefined
        await sleep(1)
      }
    },
  }
}

/** The files below a folder, but for what was being written in the moment of a kill, which still has the name that nothing reads. */
export const filesOf = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile() && !isTemporaryOfOthers(file.name))
    .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1))
    .sort()
