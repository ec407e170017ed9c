import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { COMMANDS, FILE_VERBS, SYSTEMS as ROOMS } from '../../lib/cli/commands.js'
import { helpOf } from '../../lib/kit/command.js'
import { readOptions } from '../../lib/kit/options.js'
import { salmonnCommands } from '../../lib/systems/salmonn/commands/index.js'
import { spectraCommands } from '../../lib/systems/spectra/commands/index.js'
import { usdmCommands } from '../../lib/systems/usdm/commands/index.js'

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
// Not one of them may need libtorch to say how it is used.
const voxtorch = (...words: string[]) => {
  const env = { ...process.env, LIBTORCH: '/nowhere', VOXTORCH_ADDON: '/nowhere' }
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], { encoding: 'utf8', env })
  return { status, stdout, stderr }
}
const SYSTEMS = { spectra: spectraCommands, salmonn: salmonnCommands, usdm: usdmCommands }
const verbs = Object.entries(SYSTEMS).flatMap(([system, rules]) => rules.map((rule) => ({ system, rule })))

describe('voxtorch', () => {
  it('lists its commands, and each explains itself', () => {
    const { stdout } = voxtorch('--help')
    for (const { system, rule } of verbs) {
      expect(stdout).toContain(`  ${system} ${rule.name} `)
      expect(helpOf(`voxtorch ${system} ${rule.name}`, rule)).toContain(rule.summary.slice(0, 40))
    }
    for (const words of [
      ['install'],
      ['doctor'],
      ['serve'],
      ['runs'],
      ['launch'],
      ['weights'],
      ['transcribe'],
      ['spectra', 'finetune'],
      ['salmonn', 'train'],
    ]) {
      const help = voxtorch(...words, '--help')
      expect([help.status, help.stderr]).toEqual([0, ''])
      expect(help.stdout).toContain(`Usage: voxtorch ${words.join(' ')}`)
      expect(voxtorch('help', ...words).stdout).toBe(help.stdout)
    }
    expect(voxtorch('help', 'spectra').stdout).toBe(voxtorch('spectra', '--help').stdout)
    expect(voxtorch('help', 'help').stdout).toBe(voxtorch('help').stdout)
    expect(voxtorch('help', 'transcrib').stderr).toMatch(/no command "transcrib"; did you mean "transcribe"/)
    for (const word of ['salmonn-convert', 'emoverse-sft', 'usdm-units', 'usdm-voicebox-train']) {
      expect(voxtorch(word, '--help').stdout).toContain(`Usage: voxtorch ${word.replace('-', ' ')}`)
    }
    expect(voxtorch('spectra').stdout).toMatch(/voxtorch spectra finetune/)
  })

  it.each([
    [['finetune'], /no command "finetune"/],
    [['spectre'], /did you mean "spectra"/],
    [['spectra', 'finetun'], /no command "spectra finetun"; did you mean "spectra finetune"/],
    [['spectra', 'finetune', '--modle', 'x'], /no option --modle; did you mean --model\?/],
    [['salmonn', 'score', 'file'], /"file" is no option/],
    [['salmonn', 'chat'], /Say which model/],
    [['usdm', 'preprocess'], /Say where the dialogs are/],
    [['usdm', 'units'], /Say where the clips are/],
    [['usdm', 'preview'], /Say which file of examples/],
    [['usdm', 'finetune'], /Say what to train on/],
    [['usdm', 'finetune', '--data', 'x', '--lora-alpa', '8'], /no option --lora-alpa; did you mean --lora-alpha\?/],
    [['usdm', 'finetune', '--data', 'x', '--output', 'y', '--lora_r', '8'], /are for --lora/],
    [['usdm', 'prepare', '--data', 'x'], /Say where rows go/],
    [['usdm', 'pretrain', '--data', 'x'], /Say where results go/],
    [['usdm', 'score'], /Say --predictions/],
    [['runs', 'a', 'b'], /Unexpected argument "b"/],
    [['transcribe'], /which recording/],
    [['transcribe', 'a.wav', '--words'], /--words is for --format json/],
    [['weights', 'whisper-bas'], /did you mean 'whisper-base'/],
    [['weights', 'minilm', '--index-url', 'nowhere'], /http address/],
  ])('%j fails with a sentence', (words, message) => {
    const { status, stdout, stderr } = voxtorch(...words)
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/^voxtorch: .*\n$/)
    expect(stderr).toMatch(message)
  })

  it('has one word for one thing', () => {
    const ONE_WORD: Record<string, string[]> = {
      output: ['out', 'outputDir', 'dir'],
      model: ['modelDir', 'network', 'checkpointDir'],
      maxSteps: ['steps'],
      audioRoot: ['audio', 'audioDir'],
      data: ['dataDir', 'dataset'],
      onBadRecord: ['onBadItem', 'skipBad'],
      dtype: ['precision'],
    }
    for (const { rule } of verbs) {
      const shown = Object.entries(rule.options).filter(([, { hidden }]) => !hidden)
      const names = shown.map(([name]) => name)
      for (const others of Object.values(ONE_WORD)) expect(names.filter((name) => others.includes(name))).toEqual([])
    }
  })

  const root = fileURLToPath(new URL('../..', import.meta.url))
  const pages = readdirSync(`${root}/docs`, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md') && !/^(api|node_modules|\.vitepress)\b|^cli\.md$/.test(path))
    .map((path) => `docs/${path}`)
  /** What stands in a terminal, and what a cell or a sentence has as a whole command. */
  const lines = ['README.md', ...pages].flatMap((page) => {
    const text = readFileSync(`${root}/${page}`, 'utf8')
    const blocks = [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block = '']) =>
      block.replace(/[ \t]*\\\n\s*/g, ' ').split('\n'),
    )
    const cells = [...text.matchAll(/`(npx voxtorch [^`]+)`/g)].map(([, line = '']) => line)
    return [...blocks, ...cells]
      .map((line) => line.replace(/\s+#.*$/, '').trim())
      .filter((line) => line.startsWith('npx voxtorch ') && !/[…[]/.test(line))
      .map((line) => [page, line] as const)
  })

  it('understands every command of the documentation', () => {
    expect(lines.length).toBeGreaterThan(60)
    for (const [page, line] of lines) {
      const said = line.slice('npx voxtorch '.length)
      // One word does for two.
      const joined = Object.keys(ROOMS).find((system) => said.startsWith(`${system}-`))
      const [name = '', ...words] = (joined ? said.replace('-', ' ') : said).split(/\s+/)
      const room = Object.hasOwn(ROOMS, name) ? ROOMS[name] : undefined
      // A system alone lists its verbs.
      if (room && words.length === 0) continue
      const [verb, ...rest] = words
      const named = room?.find((rule) => rule.name === verb)
      const rule = named ?? (room ?? COMMANDS).find((one) => one.name === (room ? FILE_VERBS[name] : name))
      expect(rule, `${page}: ${line}`).toBeDefined()
      const read = () => readOptions(name, rule!.options, named ? rest : words, rule!.foreign)
      expect(read, `${page}: ${line}`).not.toThrow()
      if (rule!.files === undefined) expect(read().files, `${page}: ${line}`).toEqual([])
    }
  })
})
