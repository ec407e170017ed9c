import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { helpOf } from '../../lib/kit/command.js'
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
})
