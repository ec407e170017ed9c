import { mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { compileTypeScript } from '../scripts/bootstrap.mjs'

const MEMORY = '/dev/shm'
const PREFIX = 'voxtorch-tests-'
// Several times what all files of both tiers leave there.
const ENOUGH = 4 * 2 ** 30

/** Where temporary files cost no disk: trainings and atomic files flush each file, which takes 10 ms on many disks. */
function fastFolder(): string {
  try {
    const { bavail, bsize, type } = statfsSync(MEMORY)
    const isTmpfs = type === 0x01021994
    return isTmpfs && bavail * bsize >= ENOUGH && freemem() >= 2 * ENOUGH ? MEMORY : tmpdir()
  } catch {
    return tmpdir()
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
  const parent = fastFolder()
  // vitest calls this once for each project.
  if (process.env.TMPDIR?.startsWith(join(parent, `${PREFIX}${process.pid}-`))) return () => {}
  // A run that was killed deleted nothing.
  for (const name of readdirSync(parent)) {
    const pid = Number(name.startsWith(PREFIX) ? name.slice(PREFIX.length).split('-')[0] : 'none')
    if (pid > 0 && !isAlive(pid)) rmSync(join(parent, name), { recursive: true, force: true })
  }
  const folder = mkdtempSync(join(parent, `${PREFIX}${process.pid}-`))
  process.env.TMPDIR = folder
  return () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
}
