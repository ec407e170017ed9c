import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../lib/base/errors.js'
import { commandRule, helpOf, runCommand } from '../../lib/kit/command.js'
import { flagOf, readOptions } from '../../lib/kit/options.js'

const TABLE = {
  batchSize: { type: 'integer', help: 'samples of a batch', default: 24, aliases: ['per_gpu_batch'] },
  learningRate: { type: 'number', help: 'the highest', placeholder: 'rate', aliases: ['lr'] },
  validShare: { type: 'fraction', help: 'to choose by' },
  turnIds: { type: 'boolean', help: 'tells turns' },
  labels: { type: 'list', help: 'classes' },
  style: { type: ['plain', 'rich'], help: 'how it looks' },
  options: { type: 'strings', help: 'key=value' },
  each: { type: 'strings', help: 'one behind each', oneEach: true },
  model: { type: 'string', help: 'a network', placeholder: 'dir', ignoredValues: { other: 'there is no other' } },
  secret: { type: 'string', help: 'of the original', hidden: true },
} as const
const ORIGINAL_OPTIONS = {
  local_rank: { takesValue: true, reason: 'told otherwise' },
  no_amp: { takesValue: false, reason: 'off anyway' },
  caches: { takesValue: 'several' as const, reason: 'nothing is kept' },
  seconds: { read: (text: string) => ['batchSize', String(Number(text) * 10)] as const },
}
const read = (line: string) => readOptions('thing', TABLE, line.split(' '), ORIGINAL_OPTIONS)

describe('a table of options', () => {
  it('reads every kind, in every spelling', () => {
    const { options, files, ignored } = read(
      'a.wav --batch_size 8 --lr=1e-3 --valid-share 0.25 --no-turn-ids --labels a,b --style rich --options a=1 b=--x c ' +
        '--model m --each p=1 ann=1.wav --each=q=2 --secret s',
    )
    expect(options).toEqual({
      ...{ batchSize: 8, learningRate: 1e-3, validShare: 0.25, turnIds: false, labels: ['a', 'b'], style: 'rich' },
      ...{ options: ['a=1', 'b=--x', 'c'], model: 'm', each: ['p=1', 'q=2'], secret: 's' },
    })
    expect(files).toEqual(['a.wav', 'ann=1.wav'])
    expect(ignored).toEqual([])
    expect(read('--turn_ids --').options).toEqual({ turnIds: true })
    expect(read('--turn-ids=false -- --lr').files).toEqual(['--lr'])
    expect(read('- --lr 0').files).toEqual(['-'])
    // Values that look like something else to other parsers.
    expect(read('--model=--x=y --options=-1').options).toEqual({ model: '--x=y', options: ['-1'] })
    expect(read('--model -5').options).toEqual({ model: '-5' })
  })

  it("takes the original's options that mean something else, and says which mean nothing", () => {
    const { options, ignored } = read('--local-rank 3 --no_amp --seconds 1.5 --model other')
    expect(options).toEqual({ batchSize: 15 })
    expect(ignored).toEqual([
      { flag: '--local-rank', reason: 'told otherwise' },
      { flag: '--no_amp', reason: 'off anyway' },
      { flag: '--model other', reason: 'there is no other' },
    ])
    const several = read('--caches a b --lr 1 c --caches=d e')
    expect([several.options, several.files]).toEqual([{ learningRate: 1 }, ['c', 'e']])
    expect(several.ignored).toEqual(Array(2).fill({ flag: '--caches', reason: 'nothing is kept' }))
    expect(() => read('--caches')).toThrow(/^--caches: expected a value, got none/)
  })

  it.each([
    ['--batchsize 3', /^thing: expected a known option, got --batchsize\. Did you mean --batch-size\?$/],
    ['--no-lr', /known option, got --no-lr/],
    ['--lr', /^--lr: expected a value, got none/],
    ['--lr --model x', /^--lr: expected a value, got none/],
    ['--model=', /--model: expected a value, got none/],
    ['--lr 1 --learning_rate 2', /expected the option once, got it again \(as --learning-rate\)/],
    ['--turn-ids=maybe', /expected true or false, got "maybe"/],
    ['--batch-size 2.5', /^--batch-size: expected an integer of at least 0, got "2\.5"\.$/],
    ['--lr -1', /^--learning-rate: expected a number of at least 0, got "-1"\.$/],
    ['--lr Infinity', /number of at least 0/],
    ['--valid-share 1', /^--valid-share: expected a fraction in \[0, 1\), got "1"\.$/],
    ['--style odd', /^--style: expected plain or rich, got "odd"\.$/],
    ['-x', /expected an option, such as --name, got "-x"/],
    ['--__proto__ 1', /expected (an|a known) option/],
    ['--constructor 1', /known option, got --constructor/],
  ])('refuses %s', (line, message) => {
    expect(() => read(line)).toThrow(ConfigError)
    expect(() => read(line)).toThrow(message)
  })

  it('checks devices, and says what to do instead of an option of another program', () => {
    const table = { device: { type: 'string', help: 'device' } } as const
    const readDevice =
      (...argv: string[]) =>
      () =>
        readOptions('thing', table, argv, { output: { instead: 'Use >.' } })
    expect(readDevice('--device', 'cuda:1')().options).toEqual({ device: 'cuda:1' })
    expect(readDevice('--device', 'gpu')).toThrow(
      '--device: expected a device, cpu, cuda or cuda:0, got "gpu". Did you mean cuda?',
    )
    expect(readDevice('--output', 'x')).toThrow('thing: expected a known option, got --output. Use >.')
  })

  it('takes the short spellings that a table has, and no others', () => {
    const table = { output: { type: 'string', help: 'x', aliases: ['log_dir', '-l'] } } as const
    const originals = { '-mc': { takesValue: true, reason: 'nothing is kept' } } as const
    const { options, ignored } = readOptions('thing', table, ['-l', 'run', '-mc', 'dir'], originals)
    expect([options.output, ignored]).toEqual(['run', [{ flag: '-mc', reason: 'nothing is kept' }]])
    expect(() => readOptions('thing', table, ['-m', 'x'], originals)).toThrow(
      /expected an option, such as --name, got "-m"/,
    )
    expect(() => readOptions('thing', table, ['-l'], originals)).toThrow(/^-l: expected a value, got none/)
    expect(() => readOptions('thing', table, ['--l', 'x'], originals)).toThrow(/known option, got --l/)
  })

  it('names options as the field does', () => {
    expect(['maxSteps', 'fp16', 'loadIn8bit', 'model'].map(flagOf)).toEqual([
      ...['--max-steps', '--fp16', '--load-in8bit', '--model'],
    ])
  })
})

describe('a command', () => {
  const seen: unknown[] = []
  const rule = commandRule({
    name: 'verb',
    summary: 'Does something.',
    options: TABLE,
    originalOptions: ORIGINAL_OPTIONS,
    async run(options, files) {
      seen.push(options, files)
      return 3
    },
  })

  it('says in --help what each option does, and hides what is hidden', () => {
    const help = helpOf('voxtorch thing verb', rule)
    expect(help).toMatch(/^Usage: voxtorch thing verb \[options\]\n\nDoes something\.\n/)
    expect(help).toMatch(/--batch-size <n> +samples of a batch \(default: 24; also --per_gpu_batch\)/)
    expect(help).toMatch(/--learning-rate <rate> +the highest/)
    expect(help).toMatch(/--style <plain\|rich>/)
    expect(help).not.toMatch(/--secret|--no-turn-ids/)
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(130)
  })

  it('runs, and refuses files where it takes none', async () => {
    expect(await runCommand('voxtorch thing verb', rule, ['--lr', '1'])).toBe(3)
    expect(seen).toEqual([{ learningRate: 1 }, []])
    await expect(runCommand('voxtorch thing verb', rule, ['file'])).rejects.toThrow(
      /expected only options, which begin with --, got "file"/,
    )
  })
})
