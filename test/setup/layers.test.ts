import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const lib = resolve('lib')
/** Folders of lib/, from the ground up: each uses those before it. */
const floors = [
  'base',
  'native',
  'tensor',
  'files',
  'data',
  'hub',
  'audio',
  'vision',
  'text',
  'datasets',
  'nn',
  'distributions',
  'func',
  'generation',
  'distributed',
  'peft',
  'models',
  'train',
  'kit',
  'tuning',
  'serve',
  'systems',
  'pipeline',
  'cli',
]
const sources = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
const imports = sources.flatMap((path) => {
  const file = join(lib, path)
  const found = readFileSync(file, 'utf8').matchAll(
    /^(?:import|export) (?!type)[^'\n]*(?:\{[^}]*\} from )?'(\.[^']+)'|import\('(\.[^']+)'\)/gm,
  )
  return [...found].map(
    ([, fixed, late]) => [path, relative(lib, resolve(dirname(file), fixed ?? late ?? ''))] as const,
  )
})
/** Without comments. */
const codeOf = (path: string) => readFileSync(join(lib, path), 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')
const inside = (path: string, folder: string) => path.startsWith(`${folder}/`)
const floorOf = (path: string) => floors.findIndex((folder) => inside(path, folder))

describe('who imports whom', () => {
  it('is read from the sources', () => {
    expect(imports).toContainEqual(['systems/salmonn/network/network.ts', 'systems/salmonn/network/clips.js'])
    expect(imports.length).toBeGreaterThan(1000)
    const folders = readdirSync(lib, { withFileTypes: true }).filter((entry) => entry.isDirectory())
    expect(folders.map(({ name }) => name).sort()).toEqual([...floors].sort())
  })

  it('each floor knows those below it, types aside', () => {
    // What stands in no folder is the face of the whole, and this index that of `voxtorch/files`; nothing in lib/ imports it.
    const below = imports.filter(([from]) => from.includes('/') && from !== 'files/index.ts')
    expect(below.filter(([, to]) => to === 'files/index.js')).toEqual([])
    expect(below.filter(([from, to]) => floorOf(to) > floorOf(from))).toEqual([])
    // Commands use the library as its users do, or its parts.
    expect(below.filter(([from, to]) => to === 'index.js' && !inside(from, 'cli'))).toEqual([])
  })

  it('clips are read in one place', () => {
    const readers = ['audio/read.js', 'audio/source.js', 'audio/stream.js', 'audio/decoder.js', 'audio/pcm.js']
    const decoders = (to: string) => readers.includes(to) || inside(to, 'audio/codecs')
    const outside = imports.filter(([from, to]) => decoders(to) && !inside(from, 'audio'))
    expect(outside).toEqual([])
    const named = sources.filter((path) => !inside(path, 'audio') && /\breadAudio(Stream)?\(/.test(codeOf(path)))
    expect(named).toEqual([])
  })

  it('the rate of speech is a number in one file', () => {
    const wrong = sources.filter((path) => /\b16_?000\b/.test(codeOf(path)))
    expect(wrong).toEqual(['audio/speech.ts'])
  })

  it('rooms of systems have the same names for the same thing', () => {
    const everywhere = ['index.ts', 'network/network.ts', 'network/config.ts', 'network/files.ts', 'data/open.ts']
    everywhere.push('data/collate.ts', 'training/recipe.ts', 'training/train.ts', 'training/optimizer.ts')
    everywhere.push(
      'evaluation/metrics.ts',
      'configuration/arguments.ts',
      'configuration/apply.ts',
      'commands/index.ts',
    )
    const folders = ['answer', 'commands', 'configuration', 'data', 'evaluation', 'network', 'published', 'training']
    // What a room has no use for: the parts of a USDM bring their configurations, an EmoVerse is what its InternVL's says, and the
    // optimisers of both are the Trainer's.
    const without: Record<string, string[]> = {
      usdm: ['network/config.ts', 'data/open.ts', 'training/optimizer.ts'],
      emoverse: ['network/config.ts', 'training/optimizer.ts'],
    }
    // Stages with data of their own.
    const stages: Record<string, string[]> = {
      spectra: ['pretraining', 'tracking'],
      usdm: ['pretraining', 'voicebox'],
      emotion: ['causes'],
    }
    for (const name of readdirSync(join(lib, 'systems'))) {
      const own = sources.filter((path) => inside(path, `systems/${name}`)).map((path) => path.split('/').slice(2))
      const found = new Set(own.flatMap(([folder, file]) => (file === undefined ? [] : [folder])))
      const wanted = [...folders, ...(stages[name] ?? [])]
      expect(
        own.map((path) => path.join('/')),
        name,
      ).toEqual(expect.arrayContaining(everywhere.filter((path) => !without[name]?.includes(path))))
      for (const path of without[name] ?? []) expect(own.map((one) => one.join('/'))).not.toContain(path)
      expect([...found].sort(), name).toEqual(wanted.sort())
      for (const folder of found) expect(own.filter(([first]) => first === folder).length, folder).toBeGreaterThan(1)
    }
  })

  it('no system knows another', () => {
    const systemOf = (path: string) => (inside(path, 'systems') ? path.split('/')[1] : undefined)
    const wrong = imports.filter(([from, to]) => systemOf(from) && systemOf(to) && systemOf(from) !== systemOf(to))
    expect(wrong).toEqual([])
  })
})
