# Runs the CMake build, for tools that drive node-gyp only, such as prebuildify. Not published: a binding.gyp in a
# published package makes npm build at every installation.
{
  'targets': [
    {
      'target_name': 'voxtorch',
      'type': 'none',
      'actions': [
        {
          'action_name': 'cmake',
          'inputs': ['CMakeLists.txt'],
          'outputs': ['build/voxtorch.node'],
          'action': ['node', 'scripts/bootstrap.mjs'],
        },
      ],
    },
  ],
}
