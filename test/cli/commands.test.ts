import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { COMMANDS, FILE_VERBS, SYSTEMS } from '../../lib/cli/commands.js'
import { helpOf } from '../../lib/kit/command.js'
import { readOptions } from '../../lib/kit/options.js'
import { docPages } from '../doc-pages.js'
import { main, voxtorch as run } from './run.js'

// Not one of them may need libtorch to say how it is used.
const env = { LIBTORCH: '/nowhere', VOXTORCH_ADDON: '/nowhere' }
const voxtorch = (commands: readonly (readonly string[])[]) => run(commands, env)
const verbs = Object.entries(SYSTEMS).flatMap(([system, rules]) => rules.map((rule) => ({ system, rule })))

describe('voxtorch', async () => {
  it('lists its commands, and each explains itself', async () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, '--help'], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    })
    expect([status, stderr]).toEqual([0, ''])
    for (const rule of COMMANDS) {
      expect(stdout).toContain(`  ${rule.name.padEnd(24)}  ${rule.summary}`)
      expect(helpOf(`voxtorch ${rule.name}`, rule)).toContain(rule.summary.slice(0, 40))
    }
    expect(Object.keys(SYSTEMS)).toEqual(['spectra', 'salmonn', 'usdm', 'emotion', 'emoverse'])
    for (const { system, rule } of verbs) {
      expect(stdout).toContain(`  ${system} ${rule.name} `)
      expect(helpOf(`voxtorch ${system} ${rule.name}`, rule)).toContain(rule.summary.slice(0, 40))
    }
    const explained = [
      ['install'],
      ['doctor'],
      ['serve'],
      ['runs'],
      ['launch'],
      ['weights'],
      ['transcribe'],
      ['spectra', 'finetune'],
      ['salmonn', 'train'],
    ]
    const joined = ['salmonn-convert', 'emoverse-sft', 'usdm-units', 'usdm-voicebox-train']
    const helps = await voxtorch([...explained, ...joined.map((word) => [word])].map((words) => [...words, '--help']))
    for (const [i, words] of [...explained, ...joined.map((word) => [word.replace('-', ' ')])].entries()) {
      expect([helps[i]?.status, helps[i]?.stderr]).toEqual([0, ''])
      expect(helps[i]?.stdout).toContain(`Usage: voxtorch ${words.join(' ')}`)
    }
    expect((await voxtorch([['spectra']]))[0]?.stdout).toMatch(/voxtorch spectra train .* Also finetune\.\n/)
  })

  it('has the verb train in every system', async () => {
    const originals = { spectra: 'finetune', salmonn: 'train', usdm: 'finetune', emotion: 'train', emoverse: 'sft' }
    const [unknown, ...found] = await voxtorch([
      ['usdm', 'trian'],
      ...Object.entries(originals).flatMap(([system, original]) => [
        ...[[system, 'train', '--help'], [system, original, '--help'], [system]],
      ]),
    ])
    for (const [i, [system, original]] of Object.entries(originals).entries()) {
      const [train, other, alone] = found.slice(3 * i)
      expect([train?.status, train?.stderr]).toEqual([0, ''])
      const renamed = other?.stdout.replace(`voxtorch ${system} ${original}`, '')
      expect(train?.stdout.replace(`voxtorch ${system} train`, ''), system).toBe(renamed)
      expect(alone?.stdout).toMatch(new RegExp(`^  voxtorch ${system} train `))
    }
    expect(unknown?.stderr).toMatch(/Did you mean "usdm train"/)
  })

  it('help COMMAND says what COMMAND --help says', async () => {
    const asked = [
      ...[['install'], ['doctor'], ['serve'], ['runs'], ['launch'], ['weights'], ['transcribe']],
      ...[['spectra', 'finetune'], ['salmonn', 'train'], ['salmonn-convert'], ['emotion'], ['spectra']],
    ]
    const found = await voxtorch(
      asked.flatMap((words) => [
        ['help', ...words],
        [...words, '--help'],
      ]),
    )
    for (const [i, words] of asked.entries()) {
      expect(found[2 * i], words.join(' ')).toEqual(found[2 * i + 1])
      expect([found[2 * i]?.status, found[2 * i]?.stderr]).toEqual([0, ''])
    }
    expect(found[2 * asked.findIndex(([word]) => word === 'transcribe')]?.stdout).toContain(
      'Usage: voxtorch transcribe [options] FILE ...',
    )
    const [help, option, twice, unknown] = await voxtorch([
      ['help'],
      ['--help'],
      ['help', 'help'],
      ['help', 'transcrib'],
    ])
    expect(help?.stdout).toBe(option?.stdout)
    expect(twice?.stdout).toBe(help?.stdout)
    expect(unknown).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('unknown command "transcrib". Did you mean "transcribe"?'),
    })
  })

  const refused: [string[], RegExp][] = [
    [['finetune'], /unknown command "finetune"/],
    [['spectre'], /Did you mean "spectra"/],
    [['spectra', 'finetun'], /unknown command "spectra finetun". Did you mean "spectra finetune"/],
    [['spectra', 'finetune', '--modle', 'x'], /known option, got --modle. Did you mean --model\?/],
    [['salmonn', 'score', 'file'], /got "file"/],
    [['salmonn', 'chat'], /--model: expected a model, got none/],
    [['usdm', 'preprocess'], /--data: expected the folder of dialogs/],
    [['usdm', 'units'], /--data: expected the folder of audio files/],
    [['usdm', 'preview'], /expected one file of examples/],
    [['usdm', 'finetune'], /--data: expected training files/],
    [
      ['usdm', 'finetune', '--data', 'x', '--lora-alpa', '8'],
      /known option, got --lora-alpa. Did you mean --lora-alpha\?/,
    ],
    [['usdm', 'finetune', '--data', 'x', '--output', 'y', '--lora_r', '8'], /expected with --lora/],
    [['usdm', 'prepare', '--data', 'x'], /--output: expected the folder to write rows to/],
    [['usdm', 'pretrain', '--data', 'x'], /--output: expected the folder for results/],
    [['usdm', 'score'], /--predictions: expected the file/],
    [['runs', 'a', 'b'], /expected at most one folder, got a second argument "b"/],
    [['transcribe'], /expected an audio file, got none/],
    [['transcribe', 'a.wav', '--words'], /--words: expected --format json, got lines/],
    [['weights', 'whisper-bas'], /^voxtorch: whisper-bas: there are no such .* Did you mean 'whisper-base'/],
    [['transcribe', 'a.wav', 'b.wav', '--format', 'srt'], /--format srt: expected one recording, .* got 2/],
    [['transcribe', 'a.wav', '--output', 'x'], /got --output\. .* write > FILE/],
    [['transcribe', 'a.wav', '--timestamps'], /got --timestamps\. The default format has segment times/],
    [['transcribe', 'a.wav', '--beams', '0'], /--beams: expected an integer of at least 1, got "0"/],
    [['transcribe', 'a.wav', '--dtype', 'q8'], /got "q8"\. Quantization is another option: --quantize int8\./],
    [['transcribe', 'a.wav', '--device', 'gpu'], /--device: .* Did you mean cuda\?/],
    [
      ['transcribe', 'a.wav', '--model', 'minilm'],
      /such as whisper-base or .*, got minilm, a sentence embedding model/,
    ],
    [['transcribe', 'nowhere.wav'], /^voxtorch: nowhere\.wav: it cannot be opened: there is no such file\n$/],
    [['weights', 'minilm', '--index-url', 'nowhere'], /expected an http or https URL/],
  ]
  const endings = await voxtorch(refused.map(([words]) => words))
  it.each(refused.map(([words, message], i) => [words, message, endings[i]] as const))(
    '%j fails with a sentence',
    (_words, message, ending) => {
      expect([ending?.status, ending?.stdout]).toEqual([1, ''])
      expect(ending?.stderr).toMatch(/^voxtorch: .*\n$/)
      expect(ending?.stderr).toMatch(message)
    },
  )

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
    // ms-swift's name of the data, whether audio is read (emoverse, and '' with serve), and the audio encoder (emotion).
    const EXCEPTIONS: Record<string, string[]> = {
      ...{ emoverse: ['dataset', 'audio'], emotion: ['audio'], '': ['audio'] },
    }
    for (const { system, rule } of [...verbs, ...COMMANDS.map((rule) => ({ system: '', rule }))]) {
      const shown = Object.entries(rule.options).filter(([, { hidden }]) => !hidden)
      const names = shown.map(([name]) => name).filter((name) => !EXCEPTIONS[system]?.includes(name))
      for (const others of Object.values(ONE_WORD))
        expect(
          names.filter((name) => others.includes(name)),
          `${system} ${rule.name}`,
        ).toEqual([])
    }
  })

  const root = fileURLToPath(new URL('../..', import.meta.url))
  /** What stands in a terminal, and what a cell or a sentence has as a whole command. */
  const lines = ['README.md', ...docPages].flatMap((page) => {
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
      const joined = Object.keys(SYSTEMS).find((system) => said.startsWith(`${system}-`))
      const [name = '', ...words] = (joined ? said.replace('-', ' ') : said).split(/\s+/)
      const room = Object.hasOwn(SYSTEMS, name) ? SYSTEMS[name] : undefined
      // A system alone lists its verbs.
      if (room && words.length === 0) continue
      const [verb, ...rest] = words
      const named = room?.find((rule) => rule.name === verb || rule.aliases?.includes(verb as string))
      const rule = named ?? (room ?? COMMANDS).find((one) => one.name === (room ? FILE_VERBS[name] : name))
      expect(rule, `${page}: ${line}`).toBeDefined()
      const read = () => readOptions(name, rule!.options, named ? rest : words, rule!.originalOptions)
      expect(read, `${page}: ${line}`).not.toThrow()
      if (rule!.files === undefined) expect(read().files, `${page}: ${line}`).toEqual([])
    }
  })
})
