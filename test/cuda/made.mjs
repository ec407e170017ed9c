// Compiles what is not up to date, once, however many processes ask for it at the same time.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Lock, takeLock } from '../../dist/modules/base/lock.js'

/**
 * @param {string} path of what is made
 * @param {string} hash of all that it is made of
 * @param {(to: string) => Promise<unknown>} make writes it
 * @returns {Promise<string>} the path
 */
export async function made(path, hash, make) {
  const stamp = `${path}.hash`
  const done = () => existsSync(path) && existsSync(stamp) && readFileSync(stamp, 'utf8') === hash
  if (done()) return path
  mkdirSync(dirname(path), { recursive: true })
  const lock = await locked(`${path}.lock`)
  try {
    if (done()) return path
    // Who has the old one open keeps it.
    await make(`${path}.new`)
    renameSync(`${path}.new`, path)
    writeFileSync(stamp, hash)
    return path
  } finally {
    lock.release()
  }
}

/** @param {string} path */
async function locked(path) {
  for (;;) {
    const lock = takeLock(path, { name: 'the compiler' })
    if (lock instanceof Lock) return lock
    await setTimeout(100)
  }
}

/** Runs a program that must succeed. @param {string} program @param {string[]} values */
export const run = (program, values) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, values, { stdio: ['ignore', 'ignore', 'pipe'] })
    let errors = ''
    child.stderr.on('data', (chunk) => {
      errors += chunk
    })
    child.on('error', reject)
    child.on('close', (code) =>
      code === 0
        ? resolve(undefined)
        : reject(new Error(`${program} ${values.join(' ')} ended with ${code}\n${errors}`)),
    )
  })

/** @template T @param {(() => Promise<T>)[]} jobs @returns {Promise<T[]>} in any order */
export async function inParallel(jobs) {
  const done = /** @type {T[]} */ ([])
  const workers = Array.from({ length: Number(process.env.CMAKE_BUILD_PARALLEL_LEVEL) || availableParallelism() })
  await Promise.all(
    workers.map(async () => {
      for (let job = jobs.shift(); job; job = jobs.shift()) done.push(await job())
    }),
  )
  return done
}
