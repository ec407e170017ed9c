import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A folder that is gone after the test. */
export function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-setup-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export function write(path: string, text = ''): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return path
}

/** What looks like a torch package of `version`; nothing in it loads. */
export function fakeLibtorch(home: string, version = '2.13.0+cpu'): string {
  write(join(home, 'lib/libtorch_cpu.so'))
  const cuda = /\+cu(\d+)(\d)$/.exec(version)
  if (cuda) write(join(home, 'lib/libtorch_cuda.so'))
  const text = cuda ? `'${cuda[1]}.${cuda[2]}'` : 'None'
  write(join(home, 'version.py'), `__version__ = '${version}'\ncuda: Optional[str] = ${text}\n`)
  return home
}

/** A PATH with nothing but these shell scripts, and what such scripts need. */
export function fakePath(directory: string, scripts: Record<string, string>): string {
  mkdirSync(directory, { recursive: true })
  for (const name of ['sh', 'mkdir', 'touch', 'cat', 'echo', 'cp']) symlinkSync(`/bin/${name}`, join(directory, name))
  for (const [name, text] of Object.entries(scripts)) {
    chmodSync(write(join(directory, name), `#!/bin/sh\n${text}\n`), 0o755)
  }
  return directory
}
