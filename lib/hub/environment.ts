import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { ConfigError } from '../base/errors.js'
import { withoutEnd } from '../base/words.js'

/**
 * The settings that Python's huggingface_hub reads from the environment, with the same names and meanings
 * (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).
 */

const variable = (name: string): string | undefined => process.env[name] || undefined

const isTrue = (value: string | undefined): boolean => /^(?:1|on|yes|true)$/i.test(value ?? '')

/** A path with ~ and $NAME filled in. */
function expanded(path: string): string {
  const home = path.replace(/^~(?=\/|$)/, () => homedir())
  return home.replace(/\$(?:(\w+)|\{([^}]*)\})/g, (all, bare, braced) => process.env[bare ?? braced] ?? all)
}

function hubHome(): string {
  return expanded(variable('HF_HOME') ?? join(variable('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface'))
}

/** The folder of all cached repositories. */
export function hubCache(): string {
  return expanded(variable('HF_HUB_CACHE') ?? variable('HUGGINGFACE_HUB_CACHE') ?? join(hubHome(), 'hub'))
}

export const hubOffline = (): boolean => isTrue(variable('HF_HUB_OFFLINE') ?? variable('TRANSFORMERS_OFFLINE'))

/** The server's address, without a slash at the end. */
export function hubEndpoint(): string {
  const given = variable('HF_ENDPOINT') ?? 'https://huggingface.co'
  const url = URL.canParse(given) ? new URL(given) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new ConfigError(`HF_ENDPOINT must be an http address, not '${given}'`, { value: given })
  }
  return withoutEnd(given, /\//)
}

/** Seconds without a byte after which a request is given up. */
export function hubTimeout(): number {
  const given = Number(variable('HF_HUB_DOWNLOAD_TIMEOUT') ?? 10)
  if (!(given > 0)) throw new ConfigError('HF_HUB_DOWNLOAD_TIMEOUT must be a number of seconds above 0')
  return given
}

/** The token to show to the server: `HF_TOKEN`, or what `hf auth login` stored. */
export function hubToken(): string | undefined {
  if (isTrue(variable('HF_HUB_DISABLE_IMPLICIT_TOKEN'))) return undefined
  const given = (variable('HF_TOKEN') ?? variable('HUGGING_FACE_HUB_TOKEN'))?.trim()
  if (given) return given
  try {
    return readFileSync(expanded(variable('HF_TOKEN_PATH') ?? join(hubHome(), 'token')), 'utf8').trim() || undefined
  } catch {
    // Whoever never logged in has no such file.
    return undefined
  }
}
