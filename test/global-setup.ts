import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { compileTypeScript } from '../scripts/bootstrap.mjs'

const MEMORY = '/dev/shm'
const PREFIX = 'voxtorch-tests-'
// Several times what all files of both tiers leave there.
const ENOUGH = 4 * 2 ** 30
const HOUR = 3600_000

/** Whether a folder is in memory, with enough of it. A container may have less memory than its machine. */
function isFast(folder: string): boolean {
  try {
    const { bavail, bsize, type } = statfsSync(folder)
    const isTmpfs = type === 0x01021994
    return isTmpfs && bavail * bsize >= ENOUGH && Math.min(freemem(), process.availableMemory()) >= 2 * ENOUGH
  } catch {
    return false
  }
}

/** Make a folder where temporary files cost no disk: trainings and atomic files flush each file, which takes 10 ms on many disks. */
function newFolder(): string {
  const name = `${PREFIX}${process.pid}-`
  if (!isFast(MEMORY)) return mkdtempSync(join(tmpdir(), name))
  let folder: string | undefined
  try {
    folder = mkdtempSync(join(MEMORY, name))
    // Some tests run programs that they write; containers often forbid that there.
    const program = join(folder, 'program')
    writeFileSync(program, '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    execFileSync(program)
    rmSync(program)
    return folder
  } catch {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
    return mkdtempSync(join(tmpdir(), name))
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Compile lib/ after an edit, without a type check, and give the tests a temporary folder that the run deletes. */
export async function setup(): Promise<() => void> {
  await compileTypeScript({ check: false })
  // vitest calls this once for each project.
  if (process.env.VOXTORCH_TEST_FOLDER) return () => {}
  for (const parent of [MEMORY, tmpdir()]) removeLeftovers(parent)
  const folder = newFolder()
  process.env.VOXTORCH_TEST_FOLDER = folder
  process.env.TMPDIR = folder
  return () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
}

/** Remove what killed runs of this user left. The process of a young folder may be one of another container. */
function removeLeftovers(parent: string): void {
  try {
    for (const name of readdirSync(parent)) {
      const pid = Number(name.startsWith(PREFIX) ? name.slice(PREFIX.length).split('-')[0] : 'none')
      if (!(pid > 0) || isAlive(pid)) continue
      const path = join(parent, name)
      const { uid, mtimeMs } = statSync(path)
      if (uid === process.getuid?.() && Date.now() - mtimeMs > HOUR) rmSync(path, { recursive: true, force: true })
    }
  } catch {
    // Another run may remove the same, and other users' folders stay.
  }
}
