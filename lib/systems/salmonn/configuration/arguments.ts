import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { nearest } from '../../../base/nearest.js'
import type { SalmonnConfiguration } from './configuration.js'
import { readSalmonnConfiguration } from './read.js'

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
  compat?: 'published'
  stage?: 1 | 2
}

const NAMES: Record<string, Exclude<keyof SalmonnArguments, 'options'>> = {
  'cfg-path': 'config',
  config: 'config',
  model: 'model',
  output: 'output',
  device: 'device',
  compat: 'compat',
  stage: 'stage',
}

/**
 * Reads a command line: `--config FILE` or the original's `--cfg-path FILE`, `--options k=v k=v`, `--device`, and our
 * `--model`, `--output`, `--stage 1`, `--compat published`. Hyphen and underscore are alike.
 *
 * @throws ConfigError for an unknown option, naming the nearest, and for a value that is missing or cannot be
 */
export function parseSalmonnArguments(argv: readonly string[]): SalmonnArguments {
  requireForm('parseSalmonnArguments', 'argv', argv, ['string'])
  const found: Record<string, unknown> = {}
  const options: string[] = []
  const words = [...argv]
  while (words.length > 0) {
    const word = words.shift() as string
    const match = /^--([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word)
    const fail = (message: string) => new ConfigError(message, { argument: word })
    if (!match) throw fail(`${JSON.stringify(word)} is no option: they begin with --`)
    const key = (match[1] as string).replaceAll('_', '-')
    if (key === 'options') {
      if (match[2] !== undefined) options.push(match[2])
      while (words.length > 0 && !/^--[A-Za-z]/.test(words[0] as string)) options.push(words.shift() as string)
      continue
    }
    const name = Object.hasOwn(NAMES, key) ? NAMES[key] : undefined
    if (name === undefined) {
      const near = nearest(key, [...Object.keys(NAMES), 'options'])
      throw fail(`SALMONN has no option --${key}${near ? `; did you mean --${near}?` : ''}`)
    }
    if (Object.hasOwn(found, name)) throw fail(`--${key} was said before`)
    const value = match[2] ?? words.shift()
    if (value === undefined || value === '' || (match[2] === undefined && /^--[A-Za-z]/.test(value))) {
      throw fail(`--${key} needs a value`)
    }
    if (name === 'compat' && value !== 'published') throw fail(`--compat is published, not ${value}`)
    if (name === 'stage' && value !== '1' && value !== '2') throw fail(`--stage is 1 or 2, not ${value}`)
    found[name] = name === 'stage' ? Number(value) : value
  }
  return { ...found, options }
}

/** The configuration that a command line names, with what it says itself. @throws ConfigError where it names none */
export async function configurationOfArguments(given: SalmonnArguments): Promise<SalmonnConfiguration> {
  requireForm('configurationOfArguments', 'the arguments', given, { options: ['string'], 'config?': 'string' })
  const { config, options, output, device, compat, stage } = given
  if (config === undefined) {
    throw new ConfigError('Say which configuration: --config FILE, or --cfg-path FILE', { argument: 'config' })
  }
  const read = await readSalmonnConfiguration(config, options)
  return {
    ...read,
    ...(output !== undefined && { outputDir: output }),
    ...(device !== undefined && { device }),
    ...(compat !== undefined && { compat }),
    ...(stage !== undefined && { stage }),
  }
}
