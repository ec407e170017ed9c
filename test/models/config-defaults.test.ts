import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { beatsKeys } from '../../lib/models/beats/config.js'
import { bigVGANKeys } from '../../lib/models/bigvgan/config.js'
import { unitVoiceboxKeys } from '../../lib/models/unit-voicebox/config.js'

/** The options of a configuration with the default that their comments end in: `Default 12.`, or `Default true; version 2: false.` */
function documented(file: string): Record<string, unknown> {
  const text = readFileSync(new URL(`../../lib/models/${file}`, import.meta.url), 'utf8')
  const options = text.matchAll(/Default ([^\n;*]+?)(?:;[^\n*]*)?\.\s*\*\/\s+(\w+)\?:/g)
  return Object.fromEntries(
    [...options].map(([, value = '', name]) => {
      return [name, JSON.parse(value.replace(/'/g, '"'))]
    }),
  )
}

// The comments state those of the original: of BEATs its class BEATsConfig, of the others the published config.json.
describe('the defaults are those that the comments name', () => {
  it.each([
    ['beats/config.ts', beatsKeys],
    ['bigvgan/config.ts', bigVGANKeys],
    ['unit-voicebox/config.ts', unitVoiceboxKeys],
  ])('%s', (file, { defaults }) => {
    expect(documented(file)).toEqual(defaults)
  })
})
