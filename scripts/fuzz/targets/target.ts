import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { Random } from '../random.js'

/** A reader that is fed with broken files. */
export interface FuzzTarget {
  name: string
  /** Sound files that mutations start from: few, small, each with something that the others lack. */
  seeds(): Uint8Array[]
  /** Reads a file from memory. Returns, or throws a VoxtorchError; anything else is a finding. */
  run(bytes: Uint8Array): void | Promise<void>
  /** A file made by the format's grammar, sound or wrong in one respect, for what mutations of bytes rarely reach. */
  generate?(random: Random): Uint8Array
  /** Words of the format that mutations may put in. */
  words?: readonly string[]
}

/** The files of a fixture that test/reference/data_values.py wrote. */
export function fixtureFiles(name: string): Uint8Array[] {
  const path = new URL(`../../../test/fixtures/data/${name}.json.gz`, import.meta.url)
  const cases = JSON.parse(gunzipSync(readFileSync(path)).toString()) as { file: string }[]
  return cases.map(({ file }) => Buffer.from(file, 'base64'))
}
