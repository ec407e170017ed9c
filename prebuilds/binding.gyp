# What prebuildify has node-gyp run: cmake-js builds the addon, and what belongs into a prebuild is copied from there.
# It lies here because node-gyp removes the build/ beside it, which at the root is ours.
{
  'variables': {
    # scripts/prebuild.mjs may name another build, which then is taken as it is, or ask for CUDA.
    'built%': '../build',
    'flags%': '',
    'artifacts': '<(PRODUCT_DIR)/artifacts',
  },
  'targets': [
    {
      'target_name': 'build',
      'type': 'none',
      'conditions': [
        ['built=="../build"', {
          'actions': [
            {
              'action_name': 'cmake-js',
              'inputs': [],
              'outputs': ['<(INTERMEDIATE_DIR)/always'],
              'action': ['node', '../scripts/bootstrap.mjs', '<@(flags)'],
            },
          ],
        }],
      ],
    },
    {
      'target_name': 'voxtorch',
      'type': 'none',
      'dependencies': ['build'],
      # Not 'copies', which makes hard links: prebuildify strips what it takes.
      'actions': [
        {
          'action_name': 'addon',
          'inputs': [],
          'outputs': ['<(PRODUCT_DIR)/voxtorch.node', '<(PRODUCT_DIR)/libvoxtorch_core.so'],
          'action': ['cp', '<(built)/voxtorch.node', '<(built)/libvoxtorch_core.so', '<(PRODUCT_DIR)'],
        },
        {
          'action_name': 'artifacts',
          'inputs': [],
          'outputs': ['<(artifacts)/voxtorch_loader.node', '<(artifacts)/voxtorch-build.json'],
          'action': ['cp', '<(built)/voxtorch_loader.node', '<(built)/voxtorch-build.json', '<(artifacts)'],
        },
      ],
    },
  ],
}
