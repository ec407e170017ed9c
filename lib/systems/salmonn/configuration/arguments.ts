import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type OptionsOf, type OptionTable, readOptions, refuseFiles } from '../../../kit/options.js'
import type { SalmonnConfiguration } from './configuration.js'

/** Options of SALMONN's commands, with those of the original's `train.py` as aliases. */
export const SALMONN_OPTIONS = {
  config: { type: 'string', help: 'voxtorch or published configuration', placeholder: 'file', aliases: ['cfg-path'] },
  options: {
    type: 'strings',
    help: 'changes to the configuration, such as training.learningRate=1e-5; takes several arguments',
  },
  model: { type: 'string', help: "saved model, in place of the configuration's parts", placeholder: 'dir' },
  output: { type: 'string', help: 'folder for checkpoints, the best weights and results', placeholder: 'dir' },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: { type: 'string', help: 'dtype of the language model', placeholder: 'name', default: 'bfloat16' },
  compat: { type: ['published'], help: 'reproduce the published code where the defaults differ' },
  stage: { type: [1, 2], help: 'training stage: 1 trains Q-Former and projection, 2 also LoRA', default: 2 },
} as const satisfies OptionTable

/** Command line arguments of SALMONN's commands, in addition to a configuration. `options` are overrides `key=value` of the file. */
export type SalmonnArguments = OptionsOf<typeof SALMONN_OPTIONS> & { options: string[] }

/**
 * Parse a command line: `--config FILE` or the original's `--cfg-path FILE`, `--options k=v k=v`, `--device`, and voxtorch's `--model`,
 * `--output`, `--dtype`, `--stage 1`, `--compat published`. Hyphens and underscores are equivalent.
 *
 * @throws ConfigError for an unknown option, naming the nearest, and for a missing or invalid value
 */
export function parseSalmonnArguments(argv: readonly string[]): SalmonnArguments {
  const { options, files } = readOptions('SALMONN', SALMONN_OPTIONS, argv)
  refuseFiles('SALMONN', files)
  return salmonnArguments(options)
}

/** Convert parsed options to the argument of {@link configurationOfArguments}. */
export const salmonnArguments = (options: OptionsOf<typeof SALMONN_OPTIONS>): SalmonnArguments => ({
  ...options,
  options: options.options ?? [],
})

/** Print the keys without effect on stderr, from index `first` on, and return their number. */
export function printIgnored({ ignored }: Pick<SalmonnConfiguration, 'ignored'>, first = 0): number {
  for (const { key, reason } of ignored.slice(first)) console.error(`${key} has no effect: ${reason}`)
  return ignored.length
}

/** Read the configuration of a command line, with its overrides. @throws ConfigError if it names none */
export async function configurationOfArguments(values: SalmonnArguments): Promise<SalmonnConfiguration> {
  requireForm('configurationOfArguments', 'the arguments', values, { options: ['string'], 'config?': 'string' })
  const { config, options, output, device, compat, stage } = values
  if (config === undefined) {
    throw new ConfigError('--config: expected a configuration, got none. Pass --config FILE, or --cfg-path FILE.', {
      argument: 'config',
    })
  }
  const { readSalmonnConfiguration } = await import('./read.js')
  return {
    ...(await readSalmonnConfiguration(config, options)),
    ...defined({ outputDir: output, device, compat, stage }),
  }
}
