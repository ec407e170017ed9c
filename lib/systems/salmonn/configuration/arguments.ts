import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type OptionsOf, readOptions, refuseFiles } from '../../../kit/options.js'
import type { SalmonnConfiguration } from './configuration.js'

/** What SALMONN's commands are told beside their configuration. */
export interface SalmonnArguments {
  /** The configuration's file. */
  config?: string
  /** `key=value`, over the file. */
  options: string[]
  /** A folder of a saved model, in place of the configuration's parts. */
  model?: string
  output?: string
  device?: string
  /** Of the language model. */
  dtype?: string
  compat?: 'published'
  stage?: 1 | 2
}

/** What SALMONN's commands may be told, with the spellings of the original's `train.py`. */
export const SALMONN_OPTIONS = {
  config: { kind: 'text', help: 'a configuration of ours, or the published one', value: 'file', aliases: ['cfg-path'] },
  options: { kind: 'texts', help: 'over the configuration, such as training.learningRate=1e-5; several may follow' },
  model: { kind: 'text', help: "a saved model, in place of the configuration's parts", value: 'dir' },
  output: { kind: 'text', help: 'checkpoints, the best weights and results go here', value: 'dir' },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  dtype: { kind: 'text', help: 'of the language model', value: 'name', preset: 'bfloat16' },
  compat: { kind: ['published'], help: 'what the published code does where ours does better' },
  stage: { kind: ['1', '2'], help: '1 trains Q-Former and projection, 2 LoRA too', preset: 2 },
} as const

/**
 * Reads a command line: `--config FILE` or the original's `--cfg-path FILE`, `--options k=v k=v`, `--device`, and our
 * `--model`, `--output`, `--dtype`, `--stage 1`, `--compat published`. Hyphen and underscore are alike.
 *
 * @throws ConfigError for an unknown option, naming the nearest, and for a value that is missing or cannot be
 */
export function parseSalmonnArguments(argv: readonly string[]): SalmonnArguments {
  const { options, files } = readOptions('SALMONN', SALMONN_OPTIONS, argv)
  refuseFiles('SALMONN', files)
  return salmonnArguments(options)
}

/** What a command line says, as {@link configurationOfArguments} takes it. */
export const salmonnArguments = ({ stage, ...rest }: OptionsOf<typeof SALMONN_OPTIONS>): SalmonnArguments => ({
  ...rest,
  ...(stage !== undefined && { stage: Number(stage) as 1 | 2 }),
  options: rest.options ?? [],
})

/** Prints the keys without effect on stderr, from the one numbered `first`; returns how many there are. */
export function printIgnored({ ignored }: Pick<SalmonnConfiguration, 'ignored'>, first = 0): number {
  for (const { key, reason } of ignored.slice(first)) console.error(`${key} has no effect: ${reason}`)
  return ignored.length
}

/** The configuration that a command line names, with what it says itself. @throws ConfigError where it names none */
export async function configurationOfArguments(given: SalmonnArguments): Promise<SalmonnConfiguration> {
  requireForm('configurationOfArguments', 'the arguments', given, { options: ['string'], 'config?': 'string' })
  const { config, options, output, device, compat, stage } = given
  if (config === undefined) {
    throw new ConfigError('Say which configuration: --config FILE, or --cfg-path FILE', { argument: 'config' })
  }
  const { readSalmonnConfiguration } = await import('./read.js')
  const read = await readSalmonnConfiguration(config, options)
  return {
    ...read,
    ...(output !== undefined && { outputDir: output }),
    ...defined({ device, compat, stage }),
  }
}
