import { ConfigError } from '../base/errors.js'

/** Settings of a process from its launcher: torchrun's variables, which Kubernetes operators and `voxtorch launch` set too. */
export interface Launch {
  rank: number
  worldSize: number
  localRank: number
  masterAddr: string
  masterPort: number
  /** Whether the launcher itself serves the rendezvous store, like torchrun. */
  launcherServes: boolean
  /** Socket that already listens on `masterPort`, which rank 0 inherited from `voxtorch launch`; -1 without one. */
  listenFd: number
}

export type LaunchEnvironment = Record<string, string | undefined>

/**
 * Read `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`; `given` takes precedence.
 * @throws ConfigError that names a variable that is missing or not a number
 */
export function readLaunch(given: Partial<Launch> = {}, environment: LaunchEnvironment = process.env): Launch {
  const text = (name: string): string => {
    const value = environment[name]
    if (value) return value
    throw new ConfigError(
      `initProcessGroup: expected the environment variable ${name}, which launchers set, got none. Start the processes with ` +
        '`npx voxtorch launch --nproc 2 script.js` or torchrun, or pass the option',
      { variable: name },
    )
  }
  const whole = (name: string, most: number): number => {
    const value = text(name)
    if (/^\d{1,9}$/.test(value) && Number(value) <= most) return Number(value)
    throw new ConfigError(
      `initProcessGroup: expected an integer up to ${most} in the environment variable ${name}, got "${value}"`,
      {
        variable: name,
      },
    )
  }
  const rank = given.rank ?? whole('RANK', 65535)
  const worldSize = given.worldSize ?? whole('WORLD_SIZE', 65536)
  if (!Number.isInteger(rank) || !Number.isInteger(worldSize) || rank < 0 || rank >= worldSize) {
    throw new ConfigError(
      `initProcessGroup: expected a rank below ${worldSize}, the number of processes, got ${rank}`,
      {
        rank,
        worldSize,
      },
    )
  }
  return {
    rank,
    worldSize,
    localRank: given.localRank ?? (environment.LOCAL_RANK ? whole('LOCAL_RANK', 65535) : rank),
    masterAddr: given.masterAddr ?? text('MASTER_ADDR'),
    masterPort: given.masterPort ?? whole('MASTER_PORT', 65535),
    launcherServes: environment.TORCHELASTIC_USE_AGENT_STORE === 'True',
    listenFd: rank === 0 && environment.VOXTORCH_STORE_FD ? whole('VOXTORCH_STORE_FD', 65535) : -1,
  }
}

/** Return rank and number of processes from the launcher; 0 and 1 without one. */
export function launchedAs(environment: LaunchEnvironment = process.env): { rank: number; worldSize: number } {
  const number = (name: string, otherwise: number) => (environment[name] ? Number(environment[name]) : otherwise)
  return { rank: number('RANK', 0), worldSize: number('WORLD_SIZE', 1) }
}
