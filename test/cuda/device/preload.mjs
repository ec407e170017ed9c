// node --import test/cuda/device/preload.mjs: a process whose libtorch has the pretended CUDA device, which must be there
// before voxtorch asks for CUDA. PRETENDED_CUDA_KERNELS names libraries of kernels for it, opened once voxtorch's
// operators are declared, with `:` between them.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import { buildDevice, libtorch } from './build.mjs'

const root = fileURLToPath(new URL('../../..', import.meta.url))
if (isMainThread) {
  const loader = createRequire(import.meta.url)(join(root, 'build/voxtorch_loader.node'))
  const library = (name) => join(libtorch(), 'lib', name)
  if (existsSync(library('libtorch_global_deps.so'))) loader.open(library('libtorch_global_deps.so'), true)
  loader.open(library('libtorch_cpu.so'))
  loader.open(buildDevice())
  const kernels = (process.env.PRETENDED_CUDA_KERNELS ?? '').split(':').filter(Boolean)
  if (kernels.length > 0) {
    loader.open(library('libtorch.so'))
    createRequire(import.meta.url)(join(root, 'build/voxtorch.node'))
    for (const path of kernels) loader.open(path)
  }
}
