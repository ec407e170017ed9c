import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { expect, it } from 'vitest'

// What stands once in lib/, and where. A second one is a reader or a table that says something else some day.

const lib = resolve('lib')
const sources = readdirSync(lib, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts') && !path.startsWith('native/generated/'))
  .map((path) => [path, readFileSync(join(lib, path), 'utf8').replace(/^\s*(?:\/\/|\/?\*).*$/gm, '')] as const)

const filesWith = (pattern: RegExp): string[] =>
  sources
    .filter(([, text]) => pattern.test(text))
    .map(([path]) => path)
    .sort()

it.each<[string, RegExp, string[]]>([
  // A lock is taken away, not written.
  [
    'files and folders are put in place',
    /\brename(?:Sync)?\(/,
    ['base/atomic-folder.ts', 'base/atomic.ts', 'base/lock.ts'],
  ],
  ['a file is written whole or not at all', /\bwriteFile(?:Sync)?\(/, ['cli/build.ts', 'files/file-tensors.ts']],
  [
    'texts are escaped for HTML; templates have the spelling of MarkupSafe',
    /&lt;/,
    ['base/words.ts', 'text/jinja/strings.ts', 'train/metrics/bleu.ts'],
  ],
  [
    'a dtype has its names in other formats',
    /'BF16'|'BFloat16Storage'|\bf2: /,
    ['files/gguf/types.ts', 'tensor/dtype.ts'],
  ],
  ['a dtype has its number', /\bbfloat16: \{/, ['tensor/dtype.ts']],
  ['a word is looked for that is near', /\bfunction (?:distance|levenshtein)\(a: string/, ['base/words.ts']],
  ['keys change their case', /\[A-Z\]\/g, \(letter\) => `_/, ['base/words.ts']],
  [
    'JSON in files is read; the others parse a text of their own, one line of an answer, or a request as it is sent',
    /\bJSON\.parse\(/,
    [
      'base/lock.ts',
      'distributed/collectives.ts',
      'files/json/json.ts',
      'files/json/parse.ts',
      'files/json/reader.ts',
      'kit/recipe.ts',
      'native/libtorch.ts',
      'native/load.ts',
      'serve/body.ts',
      'systems/salmonn/configuration/read.ts',
      'systems/salmonn/data/audio-input.ts',
      'systems/salmonn/evaluation/judge.ts',
      'systems/spectra/commands/track.ts',
      'train/trainer/report.ts',
    ],
  ],
])('%s', (_what, pattern, places) => {
  expect(filesWith(pattern)).toEqual(places)
})

it('files of a few lines stand in their neighbours', () => {
  const floors = ['base', 'files', 'data', 'hub', 'audio', 'text']
  const short = sources.filter(
    ([path, text]) =>
      floors.includes(path.split('/')[0]!) && !path.endsWith('index.ts') && text.trim().split('\n').length < 12,
  )
  expect(short.map(([path]) => path)).toEqual([])
})
